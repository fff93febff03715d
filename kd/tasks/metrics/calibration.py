"""Calibration of class probabilities: temperature scaling and expected calibration error (Guo et al. 2017, arXiv:1706.04599)."""

import numpy as np
from numpy.typing import ArrayLike

from kd.errors import KdError
from kd.tasks.metrics.extra import tasks_module
from kd.tasks.metrics.resampling import Floats, Integers, check_aligned

LOWEST, HIGHEST = 0.01, 100.0
"""Bounds of a temperature. Logits that are right everywhere, or no better than chance, have their best temperature at a bound."""


def negative_log_likelihood(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0) -> float:
    """Mean of -log softmax(logits / temperature)[label], nats. logits [n, C]; labels [n] class numbers."""
    scores, gold = _logits(logits, labels)
    scaled = scores / temperature
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(scaled).sum(axis=1)) - scaled[np.arange(len(gold)), gold]))


def best_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature 0.01 .. 100 with the lowest negative log-likelihood on these examples: fit it on development data.

    The likelihood is concave in 1 / temperature, so the root of its slope is the only optimum. Ranking and accuracy do not change.
    """
    scores, gold = _logits(logits, labels)
    scores = scores - scores.max(axis=1, keepdims=True)
    of_label = scores[np.arange(len(gold)), gold]

    def slope(sharpness: float) -> float:
        """The derivative of the mean NLL by 1 / temperature: expected logit minus the label's logit."""
        weights = np.exp(scores * sharpness)
        return float(np.mean((weights * scores).sum(axis=1) / weights.sum(axis=1) - of_label))

    if slope(1 / LOWEST) <= 0:
        return LOWEST
    if slope(1 / HIGHEST) >= 0:
        return HIGHEST
    return 1 / float(tasks_module("scipy.optimize").brentq(slope, 1 / HIGHEST, 1 / LOWEST, xtol=1e-12, rtol=1e-12))


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """Mean |accuracy - confidence| over bins of equal width of the highest probability, weighted by examples; 0 is calibrated.

    probabilities [n, C], rows that sum to 1; labels [n] class numbers. Bin b holds confidences in (b / bins, (b + 1) / bins].
    """
    shares, gold = _logits(probabilities, labels)
    if shares.min() < 0 or np.abs(shares.sum(axis=1) - 1).max() > 1e-3:
        raise KdError("calibration error: expected probabilities whose rows sum to 1, got other numbers; apply softmax to logits")
    confidence = shares.max(axis=1)
    correct = shares.argmax(axis=1) == gold
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    gaps = np.bincount(place, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(gold))


def _logits(logits: ArrayLike, labels: ArrayLike) -> tuple[Floats, Integers]:
    scores, gold = np.asarray(logits, dtype=np.float64), np.asarray(labels)
    check_aligned("calibration", scores, gold)
    if scores.ndim != 2 or gold.ndim != 1 or not np.issubdtype(gold.dtype, np.integer):
        raise KdError(
            f"calibration: expected numbers [n, C] and class numbers [n], got {list(scores.shape)} and {gold.dtype} {list(gold.shape)}; "
            "pass one row per example"
        )
    if not np.isfinite(scores).all() or gold.min() < 0 or gold.max() >= scores.shape[1]:
        raise KdError(
            f"calibration: expected finite numbers and labels 0 .. {scores.shape[1] - 1}, got {gold.min()} .. {gold.max()}; "
            "check the model and the labels"
        )
    return scores, gold.astype(np.int64)
