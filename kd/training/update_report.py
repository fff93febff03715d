"""The numbers of one update."""

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class UpdateReport:
    """The report of one update. update: number of finished updates (1 after the first). Losses are means per token over all ranks."""

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
    """Values of the terms' schedules: {"weight/mlm": 0.5}."""
    cause: str = ""
    """The reason why an update was not applied."""
    more: dict[str, float] = field(default_factory=dict)
    """Further numbers of this update, by their keys in launcher/reporting/catalogue.py."""

    @property
    def values(self) -> dict[str, float]:
        """The numbers that train lines average."""
        return {"loss": self.loss, "gradient_norm": self.gradient_norm} | self.more


def reported(names: Sequence[str], means: Sequence[float], divisors: Sequence[float]) -> dict[str, float]:
    """Each term's mean, by its name. Terms that had no position are left out, because their 0 would look perfect."""
    return {name: mean for name, mean, divisor in zip(names, means, divisors, strict=True) if divisor > 0}
