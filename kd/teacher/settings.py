"""Settings of the teachers. Imports no torch."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, model_validator

from kd.errors import KdError
from kd.teacher.modes import MODES
from kd.terms import Term
from stillhouse.settings import FREE

if TYPE_CHECKING:
    ModeName = str
else:
    ModeName = Literal[tuple(MODES)]  # a mode is listed once, in MODES


class TeacherSettings(BaseModel):
    """A teacher, and the way in which the ranks share it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    """A Hugging Face model folder or hub name, with its MLM head, or with the head of the task."""
    mode: Annotated[ModeName, FREE] = "replicated"
    precision: Literal["fp32", "bf16"] | None = None
    """None: the run's."""
    cache: Annotated[str | None, FREE] = None
    """The folder of a cached teacher's hidden states (`stillhouse cache` fills it)."""

    label_map: dict[str, str] = {}
    """A task: the data's name of a label -> the model's, where they differ."""
    allow_untrained: bool = False
    """A task: also learn from a teacher that is no better than a constant prediction."""
    cache_outputs: Literal["auto"] | bool = "auto"
    """A task: compute the teacher's outputs once for each row, and keep them in a file that other runs find by content."""

    @model_validator(mode="after")
    def _cache_where_cached(self) -> "TeacherSettings":
        if self.mode == "cached" and not self.cache:
            raise ValueError("cache: expected a folder for mode: cached, got none; name one, and fill it: stillhouse cache")
        if self.mode != "cached" and self.cache is not None:
            raise ValueError(f"cache: expected none with mode: {self.mode}, got {self.cache}; set mode: cached, or drop it")
        return self


class MemberSettings(TeacherSettings):
    """One of several teachers."""

    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share of the mean, or its probability: relative to the others'."""


def _kind(value: object) -> str:
    return "several" if isinstance(value, list) else "one"


OneOrSeveral = Annotated[
    Annotated[TeacherSettings, Tag("one")] | Annotated[list[MemberSettings], Field(min_length=1), Tag("several")], Discriminator(_kind)
]
"""Settings of one teacher, or a list of them with a weight each."""
Mixing = Literal["mean", "random"]


def check_assignment(terms: Mapping[str, Term], members: int, mixing: Mixing) -> None:
    """Raise KdError, one line, for a term that cannot learn from `members` teachers. terms: by the setting that names them."""
    for place, term in terms.items():
        wrong = f"{place}.teacher: expected"
        if term.teacher is not None and not term.required_outputs:
            raise KdError(f"{wrong} none for {term.kind}, which needs no teacher, got {term.teacher}; drop it")
        if term.teacher is not None and (members == 1 or mixing == "random"):
            why = "with one teacher" if members == 1 else "with teacher_mixing: random, where one teaches everything"
            raise KdError(f"{wrong} none {why}, got {term.teacher}; drop it")
        if term.teacher is not None and term.teacher >= members:
            raise KdError(f"{wrong} a teacher from 0 to {members - 1}, got {term.teacher}; correct it")
        if members > 1 and mixing == "mean" and term.required_outputs and term.teacher is None and not term.mixes:
            raise KdError(f"{wrong} one of 0 to {members - 1} for {term.kind}, which several cannot teach together, got none; name one")
