"""One teacher or several: who teaches an update, and what the terms get of them.

mean: all teach every update; terms on distributions get the weighted mean (kd.mixture), others one teacher that they name.
random: one teaches an update, drawn with the weights as probabilities: a pure function of seed and update, whatever ranks and restarts.
"""

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from kd.teacher import TeacherSettings

MASK = (1 << 64) - 1


class MemberSettings(TeacherSettings):
    """One of several teachers."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share of the mean, or its probability: relative to the others'."""


class TeachersSettings(BaseModel):
    """Several teachers of one tokenizer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    combine: Literal["mean", "random"] = "mean"
    models: Annotated[list[MemberSettings], Field(min_length=2)]


def drawn(seed: int, update: int, weights: Sequence[float]) -> int:
    """Which of several is drawn in an update; weights: their probabilities, summing to 1."""
    state = (seed * 0x9E3779B97F4A7C15 + update * 0xD1B54A32D192ED03 + 0x632BE59BD9B4E019) & MASK
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):  # splitmix64's finaliser (Steele et al. 2014)
        state = (state ^ (state >> shift)) * factor & MASK
    share = (state ^ (state >> 31)) / 2**64
    for number, weight in enumerate(weights):
        share -= weight
        if share < 0:
            return number
    return len(weights) - 1


def shares(weights: Sequence[float]) -> tuple[float, ...]:
    """Weights that sum to 1."""
    total = sum(weights)
    return tuple(weight / total for weight in weights)
