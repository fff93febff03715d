"""Learning-rate schedules as pure functions of the update: nothing to save, nothing to restore."""

import math
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class OptimizerSettings(BaseModel):
    """AdamW and its learning rate over the run. Defaults: DistilBERT's (arXiv:1910.01108 and its training code)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.98)
    epsilon: Annotated[float, Field(gt=0)] = 1e-6
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: Annotated[float, Field(ge=0)] = 0.05
    """Below 1 a share of the run, otherwise a number of updates."""
    final_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The learning rate at the end, as a share of `learning_rate`."""

    @model_validator(mode="after")
    def _whole_warmup(self) -> "OptimizerSettings":
        if self.warmup >= 1 and self.warmup != int(self.warmup):
            raise ValueError(f"warmup: expected a share below 1 or a whole number of updates, got {self.warmup}")
        return self

    def warmup_updates(self, updates: int) -> int:
        """Updates before the peak learning rate is reached."""
        return round(self.warmup * updates) if self.warmup < 1 else int(self.warmup)


def learning_rate(settings: OptimizerSettings, update: int, updates: int) -> float:
    """The learning rate of update 0 .. updates - 1: linear warm-up to the peak, then linear, cosine or constant to `final_share`.

    The first update already moves (1/warm-up of the peak) and the last one still does, unlike schedules that waste both ends on zero.
    """
    warmup = settings.warmup_updates(updates)
    if update < warmup:
        return settings.learning_rate * (update + 1) / warmup
    left = 1.0 - (update - warmup) / max(1, updates - warmup)
    shape = {"linear": left, "cosine": 0.5 * (1.0 + math.cos(math.pi * (1.0 - left))), "constant": 1.0}[settings.schedule]
    return settings.learning_rate * (settings.final_share + (1.0 - settings.final_share) * shape)
