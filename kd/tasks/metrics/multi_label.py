"""F1 and subset accuracy of sets of labels, and a threshold per label. Values are scikit-learn's.

Predictions and labels are bool [n, L]: example i has label l.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kd.errors import KdError
from kd.tasks.metrics.extra import tasks_module
from kd.tasks.metrics.resampling import Booleans, Floats, Weighted, check_aligned, f1_of_counts, mean_of, of_sums


def f1_micro(predictions: ArrayLike, labels: ArrayLike) -> float:
    """F1 of the pooled counts of all labels."""
    predicted, gold = _sets("micro F1", predictions, labels)
    return _f1(predicted, gold, "micro")


def f1_macro(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Mean F1 over the L labels; a label that is neither predicted nor gold counts as 0."""
    predicted, gold = _sets("macro F1", predictions, labels)
    return _f1(predicted, gold, "macro")


def subset_accuracy(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Share of examples whose predicted set is exactly the gold set."""
    predicted, gold = _sets("subset accuracy", predictions, labels)
    return float(_sklearn().accuracy_score(gold, predicted))


def weighted_f1_micro(predictions: ArrayLike, labels: ArrayLike) -> Weighted:
    """Micro F1 of each resample."""
    predicted, gold = _sets("micro F1", predictions, labels)
    rows = np.stack([(predicted & gold).sum(axis=1), predicted.sum(axis=1), gold.sum(axis=1)], axis=1)
    return of_sums(rows, lambda sums: f1_of_counts(sums[:, 0], sums[:, 1], sums[:, 2]))


def weighted_f1_macro(predictions: ArrayLike, labels: ArrayLike) -> Weighted:
    """Macro F1 of each resample."""
    predicted, gold = _sets("macro F1", predictions, labels)
    count = gold.shape[1]

    def value(sums: Floats) -> Floats:
        return f1_of_counts(sums[:, :count], sums[:, count : 2 * count], sums[:, 2 * count :]).mean(axis=1)

    return of_sums(np.concatenate([predicted & gold, predicted, gold], axis=1), value)


def weighted_subset_accuracy(predictions: ArrayLike, labels: ArrayLike) -> Weighted:
    """Subset accuracy of each resample."""
    predicted, gold = _sets("subset accuracy", predictions, labels)
    return mean_of((predicted == gold).all(axis=1))


def best_thresholds(probabilities: ArrayLike, labels: ArrayLike, default: float = 0.5) -> Floats:
    """Thresholds [L] with the highest F1 of each label on these examples: choose them on development data, not on test data.

    A label is predicted where its probability is at least its threshold. A label without a gold example gets `default`.
    Among equally good thresholds the one nearest to `default` is taken. It lies halfway between two probabilities that occur.
    """
    scores, gold = np.asarray(probabilities, dtype=np.float64), np.asarray(labels, dtype=bool)
    check_aligned("thresholds", scores, gold)
    if scores.shape != gold.shape or scores.ndim != 2:
        raise KdError(
            f"thresholds: expected probabilities and labels [n, L], got {list(scores.shape)} and {list(gold.shape)}; "
            "pass one column per label"
        )
    return np.array([_best_threshold(scores[:, label], gold[:, label], default) for label in range(gold.shape[1])])


def _best_threshold(scores: Floats, gold: Booleans, default: float) -> float:
    if not gold.any():
        return default
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    cuts = np.flatnonzero(np.append(ranked[:-1] != ranked[1:], True))  # a cut between equal scores cannot be made
    hits = np.cumsum(gold[order])[cuts]
    quality = 2 * hits / (cuts + 1 + gold.sum())
    below = np.append(ranked[1:], 0.0)[cuts]
    thresholds = (ranked[cuts] + below) / 2
    best = np.flatnonzero(quality == quality.max())
    return float(thresholds[best[np.argmin(np.abs(thresholds[best] - default))]])


def _sets(metric: str, predictions: ArrayLike, labels: ArrayLike) -> tuple[Booleans, Booleans]:
    predicted, gold = np.asarray(predictions), np.asarray(labels)
    check_aligned(metric, predicted, gold)
    for name, values in (("predictions", predicted), ("labels", gold)):
        if values.ndim != 2 or values.shape != gold.shape or not np.isin(values, (0, 1)).all():
            raise KdError(
                f"{metric}: expected {name} as 0 or 1 [n, L], got {values.dtype} {list(values.shape)}; apply the thresholds first"
            )
    return predicted.astype(bool), gold.astype(bool)


def _f1(predicted: Booleans, gold: Booleans, average: str) -> float:
    if gold.shape[1] == 1:  # scikit-learn would read one column as two classes
        predicted, gold, average = predicted[:, 0], gold[:, 0], "binary"
    return float(_sklearn().f1_score(gold, predicted, average=average, zero_division=0))


def _sklearn() -> Any:
    return tasks_module("sklearn.metrics")
