"""Metrics of weighted examples, which is what a bootstrap needs.

A bootstrap resample counts each of n examples 0, 1, 2, … times. Most metrics are a function of sums over examples, so 1,000 resamples are
one matrix product of counts [R, n] with per-example numbers [n, k].
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kd.errors import KdError

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Booleans = NDArray[np.bool_]
Weighted = Callable[[Floats], Floats]
"""Counts of examples [R, n] -> the metric of each resample [R]."""


def of_sums(rows: NDArray[Any], value: Callable[[Floats], Floats]) -> Weighted:
    """A metric that depends on sums over examples only. rows: per-example numbers [n, k]; value: sums [R, k] -> metric [R]."""
    numbers = np.ascontiguousarray(rows, dtype=np.float64)
    return lambda counts: value(counts @ numbers)


def mean_of(values: NDArray[Any]) -> Weighted:
    """The mean over examples of per-example numbers [n]."""
    ones = np.ones(len(values))
    return of_sums(np.stack([np.asarray(values, dtype=np.float64), ones], axis=1), lambda sums: ratio(sums[:, 0], sums[:, 1]))


def ratio(numerator: Floats, denominator: Floats) -> Floats:
    """The quotient, element by element; 0 where the denominator is 0."""
    return np.divide(numerator, denominator, out=np.zeros(np.broadcast(numerator, denominator).shape), where=denominator != 0)


def f1_of_counts(hits: Floats, predicted: Floats, gold: Floats) -> Floats:
    """F1 = 2 hits / (predicted + gold), element by element; 0 where nothing is predicted and nothing is gold."""
    return ratio(2 * hits, predicted + gold)


def check_aligned(metric: str, predictions: Sequence[Any] | NDArray[Any], labels: Sequence[Any] | NDArray[Any]) -> None:
    """Refuse predictions and labels of different counts, or of no example."""
    if len(predictions) != len(labels) or not len(labels):
        raise KdError(
            f"{metric}: expected one prediction per label and at least one example, got {len(predictions)} predictions and "
            f"{len(labels)} labels; score the examples of one split in one order"
        )
