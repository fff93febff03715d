"""Accuracy, F1 and Matthews correlation of predicted classes. Values are scikit-learn's; the weighted forms serve the bootstrap.

Predictions and labels are class numbers [n] from 0. A quotient with denominator 0 is 0, as `zero_division=0` in scikit-learn.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kd.errors import KdError
from kd.tasks.metrics.extra import tasks_module
from kd.tasks.metrics.resampling import Floats, Integers, Weighted, check_aligned, f1_of_counts, mean_of, of_sums, ratio


def accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Share of examples whose predicted class is the label."""
    predicted, gold = _classes("accuracy", predictions, labels)
    return float(_sklearn().accuracy_score(gold, predicted))


def f1(predictions: ArrayLike, labels: ArrayLike, positive: int = 1) -> float:
    """F1 of the class `positive` against all others."""
    predicted, gold = _classes("F1", predictions, labels)
    return float(_sklearn().f1_score(gold == positive, predicted == positive, zero_division=0))


def f1_macro(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Mean F1 of the classes that occur among predictions or labels."""
    predicted, gold = _classes("macro F1", predictions, labels)
    return float(_sklearn().f1_score(gold, predicted, average="macro", zero_division=0))


def f1_micro(predictions: ArrayLike, labels: ArrayLike) -> float:
    """F1 of the pooled counts of all classes. For one class per example it equals accuracy."""
    predicted, gold = _classes("micro F1", predictions, labels)
    return float(_sklearn().f1_score(gold, predicted, average="micro", zero_division=0))


def matthews(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Matthews correlation coefficient, -1 .. 1, for two or more classes; 0 where predictions or labels are constant."""
    predicted, gold = _classes("Matthews correlation", predictions, labels)
    if (predicted == predicted[0]).all() or (gold == gold[0]).all():
        return 0.0
    return float(_sklearn().matthews_corrcoef(gold, predicted))


def weighted_accuracy(predictions: ArrayLike, labels: ArrayLike) -> Weighted:
    """Accuracy of each resample. Micro F1 is the same number."""
    predicted, gold = _classes("accuracy", predictions, labels)
    return mean_of(predicted == gold)


def weighted_f1(predictions: ArrayLike, labels: ArrayLike, positive: int = 1) -> Weighted:
    """F1 of the class `positive`, of each resample."""
    predicted, gold = (values == positive for values in _classes("F1", predictions, labels))
    rows = np.stack([predicted & gold, predicted, gold], axis=1)
    return of_sums(rows, lambda sums: f1_of_counts(sums[:, 0], sums[:, 1], sums[:, 2]))


def weighted_f1_macro(predictions: ArrayLike, labels: ArrayLike) -> Weighted:
    """Macro F1 of each resample, over the classes that occur in that resample."""
    predicted, gold = _one_hot(*_classes("macro F1", predictions, labels))
    count = predicted.shape[1]

    def value(sums: Floats) -> Floats:
        hits, predictions_of, labels_of = sums[:, :count], sums[:, count : 2 * count], sums[:, 2 * count :]
        scores = f1_of_counts(hits, predictions_of, labels_of)
        return ratio(scores.sum(axis=1), (predictions_of + labels_of > 0).sum(axis=1).astype(np.float64))

    return of_sums(np.concatenate([predicted * gold, predicted, gold], axis=1), value)


def weighted_matthews(predictions: ArrayLike, labels: ArrayLike) -> Weighted:
    """Matthews correlation of each resample (Gorodkin 2004, from counts per class)."""
    classes = _classes("Matthews correlation", predictions, labels)
    predicted, gold = _one_hot(*classes)
    count = predicted.shape[1]

    def value(sums: Floats) -> Floats:
        correct, predictions_of, labels_of = sums[:, 0], sums[:, 1 : count + 1], sums[:, count + 1 :]
        total = labels_of.sum(axis=1)
        covariance = correct * total - (predictions_of * labels_of).sum(axis=1)
        spreads = (total**2 - (predictions_of**2).sum(axis=1)) * (total**2 - (labels_of**2).sum(axis=1))
        return ratio(covariance, np.sqrt(spreads))

    return of_sums(np.concatenate([(classes[0] == classes[1])[:, None], predicted, gold], axis=1), value)


def _classes(metric: str, predictions: ArrayLike, labels: ArrayLike) -> tuple[Integers, Integers]:
    predicted, gold = np.asarray(predictions), np.asarray(labels)
    check_aligned(metric, predicted, gold)
    for name, values in (("predictions", predicted), ("labels", gold)):
        if values.ndim != 1 or not np.issubdtype(values.dtype, np.integer):
            raise KdError(
                f"{metric}: expected {name} as class numbers [n], got {values.dtype} {list(values.shape)}; take the argmax of logits"
            )
    return predicted.astype(np.int64), gold.astype(np.int64)


def _one_hot(predicted: Integers, gold: Integers) -> tuple[Floats, Floats]:
    """Both as [n, C] over the C classes that occur."""
    classes = np.union1d(predicted, gold)
    return (predicted[:, None] == classes).astype(np.float64), (gold[:, None] == classes).astype(np.float64)


def _sklearn() -> Any:
    return tasks_module("sklearn.metrics")
