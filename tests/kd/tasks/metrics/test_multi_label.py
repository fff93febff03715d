"""Sets of labels by hand, against scikit-learn, and thresholds against an exhaustive search."""

import numpy as np
import pytest
from sklearn import metrics as sklearn

from kd.errors import KdError
from kd.tasks.metrics import multi_label

PREDICTED = [[1, 0, 1], [0, 1, 0], [1, 1, 0], [0, 0, 0]]
GOLD = [[1, 0, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]]


def test_values_follow_from_the_counts():
    assert multi_label.subset_accuracy(PREDICTED, GOLD) == 1 / 4
    assert multi_label.f1_micro(PREDICTED, GOLD) == pytest.approx(2 * 3 / (5 + 4))
    assert multi_label.f1_macro(PREDICTED, GOLD) == pytest.approx((2 * 2 / (2 + 3) + 2 * 1 / (2 + 1) + 0) / 3)


def test_one_label_is_not_read_as_two_classes():
    predicted, gold = [[1], [0], [0], [0]], [[1], [1], [0], [0]]
    assert multi_label.f1_micro(predicted, gold) == pytest.approx(2 / 3)
    assert multi_label.f1_macro(predicted, gold) == pytest.approx(2 / 3)


def test_weighted_forms_equal_scikit_learn_on_the_repeated_examples():
    generator = np.random.default_rng(4)
    gold = generator.random((40, 6)) < 0.3
    predicted = gold ^ (generator.random((40, 6)) < 0.2)
    counts = generator.multinomial(40, [1 / 40] * 40, size=20).astype(np.float64)
    rows = [(np.repeat(gold, row.astype(int), axis=0), np.repeat(predicted, row.astype(int), axis=0)) for row in counts]
    for weighted, average in ((multi_label.weighted_f1_micro, "micro"), (multi_label.weighted_f1_macro, "macro")):
        expected = [sklearn.f1_score(*row, average=average, zero_division=0) for row in rows]
        np.testing.assert_allclose(weighted(predicted, gold)(counts), expected, rtol=1e-12)
    expected = [sklearn.accuracy_score(*row) for row in rows]
    np.testing.assert_allclose(multi_label.weighted_subset_accuracy(predicted, gold)(counts), expected, rtol=1e-12)


def test_thresholds_have_the_highest_f1_that_any_threshold_has():
    generator = np.random.default_rng(5)
    gold = generator.random((80, 4)) < [0.1, 0.4, 0.7, 0.0]
    scores = np.round(np.clip(generator.normal(0.3 + 0.3 * gold, 0.2), 0, 1), 2)  # with ties
    thresholds = multi_label.best_thresholds(scores, gold)
    for label in range(3):
        reached = sklearn.f1_score(gold[:, label], scores[:, label] >= thresholds[label])
        best = max(sklearn.f1_score(gold[:, label], scores[:, label] >= cut, zero_division=0) for cut in np.arange(0, 1.01, 0.01))
        assert reached == pytest.approx(best)
    assert thresholds[3] == 0.5


def test_probabilities_in_place_of_labels_are_refused():
    with pytest.raises(KdError, match="expected predictions as 0 or 1"):
        multi_label.f1_micro([[0.3, 0.9]], [[0, 1]])
    with pytest.raises(KdError, match="expected probabilities and labels"):
        multi_label.best_thresholds([[0.3, 0.9]], [[0]])
