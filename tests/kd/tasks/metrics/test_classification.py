"""Class metrics against values worked out by hand, and their weighted forms against scikit-learn on the resampled examples."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from kd.errors import KdError
from kd.tasks.metrics import classification

PREDICTED, GOLD = [1, 1, 0, 1, 0, 0, 1, 0], [1, 0, 0, 1, 1, 0, 1, 0]  # hits 3, false positives 1, misses 1, true negatives 3


def test_values_follow_from_the_four_counts():
    assert classification.accuracy(PREDICTED, GOLD) == 6 / 8
    assert classification.f1(PREDICTED, GOLD) == pytest.approx(2 * 3 / (4 + 4))
    assert classification.f1_micro(PREDICTED, GOLD) == 6 / 8
    assert classification.f1_macro(PREDICTED, GOLD) == pytest.approx((6 / 8 + 6 / 8) / 2)
    assert classification.matthews(PREDICTED, GOLD) == pytest.approx((3 * 3 - 1 * 1) / (4 * 4 * 4 * 4) ** 0.5)


def test_f1_is_of_the_class_that_is_named():
    assert classification.f1([2, 2, 0], [2, 0, 0], positive=2) == pytest.approx(2 / 3)
    assert classification.f1([0, 0], [0, 0]) == 0


def test_a_constant_has_no_matthews_correlation():
    assert classification.matthews([1, 1, 1], [0, 1, 1]) == 0
    assert classification.matthews([1, 1], [1, 1]) == 0


@pytest.mark.parametrize("classes", [2, 5])
def test_weighted_forms_equal_scikit_learn_on_the_repeated_examples(classes: int):
    generator = np.random.default_rng(classes)
    gold = generator.integers(0, classes, 60)
    predicted = np.where(generator.random(60) < 0.6, gold, generator.integers(0, classes, 60))
    counts = generator.multinomial(60, [1 / 60] * 60, size=20).astype(np.float64)
    counts[0] = gold == 0  # one class only
    values = {
        "accuracy": (classification.weighted_accuracy, sklearn.accuracy_score),
        "macro": (classification.weighted_f1_macro, lambda g, p: sklearn.f1_score(g, p, average="macro", zero_division=0)),
        "f1": (classification.weighted_f1, lambda g, p: sklearn.f1_score(g == 1, p == 1, zero_division=0)),
        "matthews": (classification.weighted_matthews, sklearn.matthews_corrcoef),
    }
    for weighted, reference in values.values():
        expected = [reference(np.repeat(gold, row.astype(int)), np.repeat(predicted, row.astype(int))) for row in counts]
        np.testing.assert_allclose(weighted(predicted, gold)(counts), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("predicted", "gold", "message"),
    [
        ([1, 0], [1], "expected one prediction per label and at least one example, got 2 predictions and 1 labels"),
        ([], [], "at least one example"),
        ([0.5, 0.1], [1, 0], "expected predictions as class numbers"),
        ([[1, 0]], [1], "expected predictions as class numbers"),
    ],
)
def test_arrays_that_do_not_fit_are_one_line(predicted: list, gold: list, message: str):
    with pytest.raises(KdError, match=message) as caught:
        classification.accuracy(predicted, gold)
    assert "\n" not in str(caught.value)
