"""Correlations by hand, and their weighted forms against scipy on the resampled examples."""

import warnings

import numpy as np
import pytest
from scipy import stats

from kd.errors import KdError
from kd.tasks.metrics import regression


def test_values_of_four_points():
    """Deviations (-1.5, -.5, .5, 1.5) and (-2, -1, 0, 3): 8 / sqrt(5 * 14). Ranks agree."""
    assert regression.pearson([1, 2, 3, 4], [1, 2, 3, 6]) == pytest.approx(8 / 70**0.5)
    assert regression.spearman([1, 2, 3, 4], [1, 2, 3, 6]) == pytest.approx(1)
    assert regression.spearman([1, 2, 3], [3, 2, 1]) == pytest.approx(-1)


def test_a_constant_is_zero_without_a_warning():
    assert regression.pearson([2.5, 2.5, 2.5], [1, 2, 3]) == 0
    assert regression.spearman([1, 2, 3], [0, 0, 0]) == 0
    for weighted in (regression.weighted_pearson, regression.weighted_spearman):
        assert weighted([0.1, 0.1, 0.1], [1, 2, 3])(np.ones((1, 3)))[0] == 0


@pytest.mark.parametrize("offset", [0.0, 1e6])
def test_weighted_forms_equal_scipy_on_the_repeated_examples(offset: float):
    generator = np.random.default_rng(3)
    gold = np.round(generator.random(50) * 5, 1) + offset  # with ties, as STS-B has
    predicted = np.round(gold + generator.normal(size=50), 1)
    counts = generator.multinomial(50, [1 / 50] * 50, size=20).astype(np.float64)
    counts[0] = np.eye(50)[7] * 50  # one example, fifty times
    for weighted, reference in ((regression.weighted_pearson, stats.pearsonr), (regression.weighted_spearman, stats.spearmanr)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            rows = [(np.repeat(predicted, row.astype(int)), np.repeat(gold, row.astype(int))) for row in counts]
            expected = np.nan_to_num([reference(*row).statistic for row in rows])
        np.testing.assert_allclose(weighted(predicted, gold)(counts), expected, rtol=1e-9, atol=1e-9)


def test_numbers_that_are_not_finite_are_named():
    with pytest.raises(KdError, match="Pearson correlation: expected finite labels, got nan in row 1"):
        regression.pearson([1, 2], [1, float("nan")])
    with pytest.raises(KdError, match=r"expected predictions as numbers \[n\], got \[2, 1\]"):
        regression.spearman([[1], [2]], [1, 2])
