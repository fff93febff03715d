"""What a term sees: N tokens of student and teacher, and what every term declares."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from kd.schedules import Schedulable

Positions = Literal["all", "masked"]


@dataclass(frozen=True)
class Side:
    """One model's outputs for N tokens: logits [N, V] fp32 and last hidden states [N, D]; None where no term asked for it."""

    logits: Tensor | None = None
    last_hidden: Tensor | None = None


@dataclass(frozen=True)
class TokenView:
    """N tokens seen by both models. labels: [N] int64, IGNORED (-100) where nothing is predicted."""

    student: Side
    teacher: Side
    labels: Tensor


class TermSettings(BaseModel):
    """What all terms share. `reads` is what a term looks at, of the student; `asks` what it needs of the teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    reads: ClassVar[Literal["logits", "last_hidden"]]
    asks: ClassVar[frozenset[str]] = frozenset()
    mixes: ClassVar[bool] = False
    """Whether it sees a teacher's logits only as softmax(logits / temperature), so that several teachers can be mixed (kd.mixture)."""

    weight: Annotated[float, Field(ge=0), Schedulable()] = 1.0
    positions: Positions = "all"
    teacher: Annotated[int, Field(ge=0)] | None = None
    """Which of several teachers it learns from, from 0; null: from all."""

    def __call__(self, view: TokenView) -> Tensor:
        """[N] fp32, one number a token."""
        raise NotImplementedError
