"""Pearson and Spearman correlation of predicted numbers. Values are scipy's; the weighted forms serve the bootstrap.

A correlation with a constant is 0 here, where scipy returns NaN with a warning.
"""

import numpy as np
from numpy.typing import ArrayLike

from kd.errors import KdError
from kd.tasks.metrics.extra import tasks_module
from kd.tasks.metrics.resampling import Floats, Weighted, check_aligned, of_sums


def pearson(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Linear correlation, -1 .. 1."""
    predicted, gold = _numbers("Pearson correlation", predictions, labels)
    return 0.0 if _constant(predicted) or _constant(gold) else float(tasks_module("scipy.stats").pearsonr(predicted, gold).statistic)


def spearman(predictions: ArrayLike, labels: ArrayLike) -> float:
    """Correlation of ranks, -1 .. 1. Equal values share their mean rank."""
    predicted, gold = _numbers("Spearman correlation", predictions, labels)
    return 0.0 if _constant(predicted) or _constant(gold) else float(tasks_module("scipy.stats").spearmanr(predicted, gold).statistic)


def weighted_pearson(predictions: ArrayLike, labels: ArrayLike) -> Weighted:
    """Pearson correlation of each resample."""
    x, y = (_standardised(values) for values in _numbers("Pearson correlation", predictions, labels))
    rows = np.stack([np.ones(len(x)), x, y, x * x, y * y, x * y], axis=1)

    def value(sums: Floats) -> Floats:
        n, sum_x, sum_y, sum_xx, sum_yy, sum_xy = sums.T
        return _correlation(n * sum_xy - sum_x * sum_y, n * sum_xx - sum_x**2, n * sum_yy - sum_y**2, n**2)

    return of_sums(rows, value)


def weighted_spearman(predictions: ArrayLike, labels: ArrayLike) -> Weighted:
    """Spearman correlation of each resample. Ranks are those within the resample."""
    predicted, gold = _numbers("Spearman correlation", predictions, labels)
    groups = [np.unique(values, return_inverse=True)[1] for values in (predicted, gold)]

    def of_counts(counts: Floats) -> Floats:
        n = counts.sum(axis=1)
        x, y = (_ranks(counts, group) - ((n + 1) / 2)[:, None] for group in groups)
        weighted_x = counts * x
        return _correlation((weighted_x * y).sum(axis=1), (weighted_x * x).sum(axis=1), (counts * y * y).sum(axis=1), n**3)

    return of_counts


def _ranks(counts: Floats, group: np.ndarray) -> Floats:
    """The mean rank of each example's value [R, n], where value number `group[i]` (ascending) occurs `counts[r, i]` times."""
    order = np.argsort(group, kind="stable")
    starts = np.searchsorted(group[order], np.arange(group.max() + 1))
    of_value = np.add.reduceat(counts[:, order], starts, axis=1)
    last = np.cumsum(of_value, axis=1)
    ranks: Floats = (last - (of_value - 1) / 2)[:, group]
    return ranks


def _correlation(covariance: Floats, variance_x: Floats, variance_y: Floats, scale: Floats) -> Floats:
    """The quotient; 0 where a variance is below rounding errors of numbers of size `scale`."""
    defined = (variance_x > 1e-12 * scale) & (variance_y > 1e-12 * scale)
    spread = np.sqrt(np.where(defined, variance_x * variance_y, 1.0))
    return np.clip(np.where(defined, covariance / spread, 0.0), -1.0, 1.0)


def _standardised(values: Floats) -> Floats:
    return (values - values.mean()) / (values.std() or 1.0)


def _constant(values: Floats) -> bool:
    return bool((values == values[0]).all())


def _numbers(metric: str, predictions: ArrayLike, labels: ArrayLike) -> tuple[Floats, Floats]:
    predicted, gold = np.asarray(predictions, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    check_aligned(metric, predicted, gold)
    for name, values in (("predictions", predicted), ("labels", gold)):
        if values.ndim != 1:
            raise KdError(f"{metric}: expected {name} as numbers [n], got {list(values.shape)}; squeeze the logits")
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise KdError(f"{metric}: expected finite {name}, got {values[row]} in row {row}; look at the model or the data")
    return predicted, gold
