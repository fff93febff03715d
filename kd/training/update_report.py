"""The numbers of one update."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class UpdateReport:
    """What one update did. update counts finished updates (1 after the first); losses are means per token over all ranks."""

    update: int
    loss: float
    terms: dict[str, float]
    gradient_norm: float
    learning_rate: float
    applied: bool
    tokens: int
    predicted: int
    phase: str = ""
    """Its phase; empty where the run has none."""
    scheduled: dict[str, float] = field(default_factory=dict)
    """What the terms' schedules gave: {"weight/mlm": 0.5}."""
    cause: str = ""
    """Why an update was not applied."""


def reported(names: Sequence[str], means: Sequence[float], divisors: Sequence[float]) -> dict[str, float]:
    """Each term's mean, by its name; without those that found nothing to look at, whose 0 would read as perfection."""
    return {name: mean for name, mean, divisor in zip(names, means, divisors, strict=True) if divisor > 0}
