"""Temperature against a grid search, and calibration error bin by bin."""

import math

import numpy as np
import pytest

from kd.errors import KdError
from kd.tasks.metrics.calibration import best_temperature, expected_calibration_error, negative_log_likelihood


def data(temperature: float) -> tuple[np.ndarray, np.ndarray]:
    """Labels drawn from softmax(logits / temperature)."""
    generator = np.random.default_rng(7)
    logits = generator.normal(size=(4000, 3)) * 3
    shares = np.exp(logits / temperature)
    shares /= shares.sum(axis=1, keepdims=True)
    return logits, (generator.random((4000, 1)) > shares.cumsum(axis=1)).sum(axis=1).clip(0, 2)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_is_found_again_and_nothing_near_it_is_better(true: float):
    logits, labels = data(true)
    found = best_temperature(logits, labels)
    assert found == pytest.approx(true, rel=0.1)  # 4,000 labels: a standard error of about 3 %
    lowest = negative_log_likelihood(logits, labels, found)
    for other in (0.5, 0.9, 0.999, 1.001, 1.1, 2):
        assert negative_log_likelihood(logits, labels, found * other) > lowest


def test_likelihood_of_two_examples_by_hand():
    expected = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(3))) / 2
    assert negative_log_likelihood([[2.0, 0.0], [6.0, 0.0]], [0, 1], temperature=2.0) == pytest.approx(expected)


def test_logits_without_an_optimum_get_a_bound():
    assert best_temperature([[1.0, 0.0], [0.0, 1.0]], [0, 1]) == 0.01
    assert best_temperature([[1.0, 0.0], [0.0, 1.0]], [1, 0]) == 100.0


def test_calibration_error_bin_by_bin():
    """Two bins of width 1/2 do not split 0.6 .. 0.9: |3/4 - 0.75|, then by tenths: 0.6, 0.7, 0.8 right and 0.9 wrong."""
    shares = np.array([[0.6, 0.4], [0.3, 0.7], [0.8, 0.2], [0.1, 0.9]])
    labels = [0, 1, 0, 0]
    assert expected_calibration_error(shares, labels, bins=2) == pytest.approx(0.0)
    assert expected_calibration_error(shares, labels, bins=10) == pytest.approx((0.4 + 0.3 + 0.2 + 0.9) / 4)
    assert expected_calibration_error([[1.0, 0.0]], [0]) == 0
    assert expected_calibration_error([[0.5, 0.5], [0.6, 0.4]], [0, 1], bins=2) == pytest.approx((0.5 + 0.6) / 2), "0.5 is in the first bin"


def test_logits_in_place_of_probabilities_are_refused():
    with pytest.raises(KdError, match="rows sum to 1"):
        expected_calibration_error([[2.0, 1.0]], [0])
    with pytest.raises(KdError, match=r"labels 0 .. 1, got 0 .. 2"):
        best_temperature([[2.0, 1.0], [0.0, 1.0]], [0, 2])
