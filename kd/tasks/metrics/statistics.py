"""Uncertainty of a metric, and what a student retains of its teacher.

Intervals are percentile bootstraps over examples (Efron and Tibshirani 1993, section 13.3). Two models that predicted the same examples are
compared on the same resamples, so what both find hard cancels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kd.errors import KdError
from kd.tasks.metrics.extra import tasks_module
from kd.tasks.metrics.resampling import Floats, Weighted

CONFIDENCE = 0.95
RESAMPLES = 1000
CHUNK_NUMBERS = 2_000_000
"""Counts that are held at once: 16 MB."""


@dataclass(frozen=True)
class Interval:
    """A metric and its percentile interval. standard_error: the standard deviation over resamples."""

    value: float
    low: float
    high: float
    standard_error: float


@dataclass(frozen=True)
class PairedDifference:
    """A metric of ours minus theirs on the same examples. p_value: two-sided, of the hypothesis that both are equally good."""

    value: float
    low: float
    high: float
    standard_error: float
    p_value: float

    @property
    def within_noise(self) -> bool:
        """True if the interval contains 0."""
        return self.low <= 0 <= self.high


def bootstrap(metric: Weighted, examples: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0) -> Interval:
    """The metric of `examples` examples and its interval. The same seed gives the same interval."""
    (values,) = _resampled((metric,), examples, resamples, seed)
    low, high = _percentiles(values, confidence)
    return Interval(_plain(metric, examples), low, high, _deviation(values))


def paired_bootstrap(
    ours: Weighted, theirs: Weighted, examples: int, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = 0
) -> PairedDifference:
    """The difference of two models' metric on the same examples, in the same order.

    p_value: twice the smaller share of resamples on one side of 0, where the observed data count as one more resample.
    """
    our_values, their_values = _resampled((ours, theirs), examples, resamples, seed)
    differences = our_values - their_values
    low, high = _percentiles(differences, confidence)
    tail = min(int((differences <= 0).sum()), int((differences >= 0).sum()))
    p_value = min(1.0, 2 * (tail + 1) / (resamples + 1))
    value = _plain(ours, examples) - _plain(theirs, examples)
    return PairedDifference(value, low, high, _deviation(differences), p_value)


def paired_ratio(
    ours: Weighted,
    theirs: Weighted,
    examples: int,
    constant: float = 0.0,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = 0,
) -> tuple[float, float]:
    """The interval of (ours - constant) / (theirs - constant) on the same examples: what ours retains of theirs.

    A resample in which theirs is not above the constant counts as unbounded (inf), so a weak teacher has a wide interval.
    """
    our_values, their_values = _resampled((ours, theirs), examples, resamples, seed)
    above = their_values - constant
    ratios = np.divide(our_values - constant, above, out=np.full(resamples, np.inf), where=above > 0)
    low, high = np.quantile(ratios, [(1 - confidence) / 2, (1 + confidence) / 2], method="higher")
    return float(low), float(high)


def mean_of_runs(runs: Sequence[Weighted]) -> Weighted:
    """The mean of a metric over runs (seeds) that predicted the same examples."""
    return lambda counts: np.mean([run(counts) for run in runs], axis=0)


def mcnemar(ours_correct: ArrayLike, theirs_correct: ArrayLike) -> float:
    """The exact two-sided p-value of McNemar's test: whether two classifiers err equally often. Inputs: bool [n], the same examples."""
    ours, theirs = np.asarray(ours_correct, dtype=bool), np.asarray(theirs_correct, dtype=bool)
    if ours.shape != theirs.shape:
        raise KdError(
            f"McNemar's test: expected the same examples twice, got {len(ours)} and {len(theirs)}; score both models on one split"
        )
    only_ours, only_theirs = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    if only_ours + only_theirs == 0:
        return 1.0
    return float(tasks_module("scipy.stats").binomtest(only_ours, only_ours + only_theirs, 0.5).pvalue)


def retained(student: float, teacher: float) -> float | None:
    """The student's metric as a share of the teacher's; None where the teacher's is not above 0."""
    return student / teacher if teacher > 0 else None


def meaningful(teacher: float, constant: float, standard_error: float) -> bool:
    """True if the teacher is more than two standard errors better than a constant prediction. Higher is better."""
    return teacher - constant > 2 * standard_error


def retained_above_constant(student: float, teacher: float, constant: float, standard_error: float) -> float | None:
    """(student - constant) / (teacher - constant); None: not meaningful, the teacher is within two standard errors of constant.

    constant: the metric of the constant predictor. standard_error: the teacher's. Below 0: the student is worse than constant.
    """
    return (student - constant) / (teacher - constant) if meaningful(teacher, constant, standard_error) else None


def macro(values: Mapping[str, float], without: frozenset[str] = frozenset()) -> float | None:
    """The mean over tasks, each with the same weight; None where no task is left. without: tasks to leave out."""
    kept = [value for task, value in values.items() if task not in without]
    return math.fsum(kept) / len(kept) if kept else None


def _resampled(metrics: tuple[Weighted, ...], examples: int, resamples: int, seed: int) -> tuple[Floats, ...]:
    """Each metric over the same resamples [resamples]."""
    if examples < 1 or resamples < 2:
        raise KdError(f"bootstrap: expected at least 1 example and 2 resamples, got {examples} and {resamples}; raise them")
    generator = np.random.default_rng(seed)
    values = tuple(np.empty(resamples) for _ in metrics)
    rows = max(1, CHUNK_NUMBERS // examples)
    for begin in range(0, resamples, rows):
        end = min(begin + rows, resamples)
        counts = np.empty((end - begin, examples))
        for row in range(end - begin):
            counts[row] = np.bincount(generator.integers(0, examples, size=examples), minlength=examples)
        for target, metric in zip(values, metrics, strict=True):
            target[begin:end] = metric(counts)
    return values


def _plain(metric: Weighted, examples: int) -> float:
    return float(metric(np.ones((1, examples)))[0])


def _percentiles(values: Floats, confidence: float) -> tuple[float, float]:
    tail = (1 - confidence) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def _deviation(values: Floats) -> float:
    return float(values.std(ddof=1))
