"""Statistics of a few seeds: means, spreads, and differences with their noise. Pure arithmetic.

Variants are compared seed by seed. Runs of the same seed see the same rows under the same masks, in training and in scoring. A difference
is its mean over seeds with Student's 95 % interval (n - 1 degrees of freedom). If the interval contains 0, the difference is within the
noise. Fewer than three seeds decide nothing: one has no interval, and the two differences of two seeds may lie close together by chance
alone.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

CONFIDENCE = 0.95
LEAST_PAIRS = 3
STEPS = 400  # of Simpson's rule, on a smooth integrand: errors below 1e-9


@dataclass(frozen=True)
class Spread:
    """Of one number over seeds. deviation: the sample's standard deviation; None for a single value."""

    mean: float
    deviation: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """Ours minus theirs over the seeds that both have. margin: half the 95 % interval; None where fewer than two seeds cannot have one."""

    mean: float
    margin: float | None
    pairs: int

    @property
    def within_noise(self) -> bool | None:
        """True if the interval contains 0; None if there are too few pairs."""
        return None if self.margin is None or self.pairs < LEAST_PAIRS else abs(self.mean) <= self.margin


def spread(values: Sequence[float]) -> Spread:
    """Mean and standard deviation of at least one value."""
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Spread(mean, None, len(values))
    return Spread(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)), len(values))


def difference(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """The paired difference of numbers by seed; None where no seed is in both."""
    pairs = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    if not pairs:
        return None
    pair_spread = spread(pairs)
    if pair_spread.deviation is None:
        return Difference(pair_spread.mean, None, 1)
    return Difference(pair_spread.mean, t_interval(pair_spread.deviation, len(pairs)), len(pairs))


def t_interval(deviation: float, count: int) -> float:
    """Half of Student's 95 % interval of a mean of at least two values."""
    return t_quantile(count - 1, 0.5 + CONFIDENCE / 2) * deviation / math.sqrt(count)


@cache
def t_quantile(freedom: int, probability: float) -> float:
    """The value that Student's t with so many degrees of freedom stays below with a probability of 0.5 .. 1.

    With t = sqrt(freedom) tan(a), its distribution is 1/2 + C x the integral of cos^(freedom - 1) from 0 to a. The angle a is found by
    halving.
    """
    constant = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if 0.5 + constant * _integral_of_cosine_power(freedom - 1, middle) < probability:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)


def _integral_of_cosine_power(power: int, end: float) -> float:
    """From 0 to `end`, by Simpson's rule."""
    step = end / STEPS
    weights = (1 if i in (0, STEPS) else 4 if i % 2 else 2 for i in range(STEPS + 1))
    return step / 3 * math.fsum(weight * math.cos(i * step) ** power for i, weight in enumerate(weights))
