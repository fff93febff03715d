"""Numbers that change during training, as pure functions of the update: nothing to save, nothing to restore.

1. The learning rate has its own course: `OptimizerSettings` and `learning_rate`.
2. Any other number of a settings model (a term's weight, its temperature) may be a `Ramp` or `Steps` where its field says `Schedulable()`.
   `resolved` gives the same settings with plain numbers at an update, so that a formula never meets a schedule.
"""

import math
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, ValidationError, model_validator
from pydantic_core import CoreSchema, SchemaValidator, core_schema

NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
ScheduleShape = Literal["linear", "cosine", "constant"]
A_SCHEDULE = "a schedule"  # pydantic's name for that member of the union, which no key may have
Settings = TypeVar("Settings", bound=BaseModel)


class OptimizerSettings(BaseModel):
    """AdamW and its learning rate over the run. Defaults: DistilBERT's (arXiv:1910.01108 and its training code)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: Annotated[float, Field(gt=0)] = 5e-4
    betas: tuple[Share, Share] = (0.9, 0.98)
    epsilon: Annotated[float, Field(gt=0)] = 1e-6
    weight_decay: NotNegative = 0.0
    schedule: ScheduleShape = "linear"
    warmup: NotNegative = 0.05
    """Below 1 a share of the run, otherwise a number of updates."""
    final_share: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The learning rate at the end, as a share of `learning_rate`."""

    @model_validator(mode="after")
    def _whole_warmup(self) -> "OptimizerSettings":
        _check_warmup(self.warmup)
        return self

    def warmup_updates(self, updates: int) -> int:
        """Updates before the peak learning rate is reached."""
        return warmup_updates(self.warmup, updates)


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


class Ramp(BaseModel):
    """A straight or cosine-shaped change between two numbers, or one number. Both may begin with a warm-up, a straight rise from 0.

    start, end: up to 1 a share of the updates, above 1 a number of them.
    warmup: below 1 a share, from 1 on a number, as the optimizer's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)

    schedule: ScheduleShape
    from_: Annotated[float, Field(alias="from")]
    """Until `start`."""
    to: float | None = None
    """From the last update before `end` on; for constant: none."""
    start: NotNegative = 0.0
    end: Annotated[float, Field(gt=0)] = 1.0
    warmup: NotNegative = 0.0

    @model_validator(mode="after")
    def _consistent(self) -> "Ramp":
        for name in ("start", "end"):
            _check_point(name, getattr(self, name))
        _check_warmup(self.warmup)
        if self.schedule == "constant" and (self.to, self.start, self.end) != (None, 0.0, 1.0):
            raise ValueError("schedule: expected from and perhaps warmup for constant, got to, start or end; choose linear, or drop them")
        if self.schedule != "constant" and self.to is None:
            raise ValueError(f"to: expected a value for {self.schedule}, got none; add it")
        if (self.start > 1) == (self.end > 1) and self.start >= self.end:
            raise ValueError(f"end: expected it after start, got start {self.start:g} and end {self.end:g}; swap or correct them")
        return self

    @property
    def bounds(self) -> tuple[float, ...]:
        """The numbers it stays between, but for a warm-up."""
        return (self.from_,) if self.to is None else (self.from_, self.to)

    def check(self, updates: int) -> None:
        """Raise ValueError unless it ends after it starts, and within the updates."""
        first, end = self._way(updates)
        if not first < end <= updates:
            told = f"got {first:,} to {end:,}; correct it"
            raise ValueError(f"expected a schedule that ends after it starts, within {updates:,} updates, {told}")

    def value(self, update: int, updates: int) -> float:
        """The number in update 0 .. updates - 1."""
        warmup, (first, end) = warmup_updates(self.warmup, updates), self._way(updates)
        if update < warmup:
            return self.from_ * (update + 1) / warmup
        if self.to is None or update < first:
            return self.from_
        left = 0.0 if update >= end - 1 else 1.0 - (update - first) / (end - 1 - first)
        return self.to + (self.from_ - self.to) * (left if self.schedule == "linear" else 0.5 * (1.0 - math.cos(math.pi * left)))

    def turns(self, updates: int) -> set[int]:
        """The updates from which on it may be 0."""
        return {0, self._way(updates)[1] - 1}

    def _way(self, updates: int) -> tuple[int, int]:
        """First update, and the one after the last, in which it moves."""
        return max(_point(self.start, updates), warmup_updates(self.warmup, updates)), _point(self.end, updates)


class Steps(BaseModel):
    """values[0], and values[i + 1] from at[i] on. at: up to 1 a share of the updates, above 1 a number of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schedule: Literal["steps"]
    values: Annotated[list[float], Field(min_length=2)]
    at: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> "Steps":
        for point in self.at:
            _check_point("at", point)
        if len(self.values) != len(self.at) + 1:
            raise ValueError(f"values: expected {len(self.at) + 1}, one more than at has, got {len(self.values)}; correct either")
        return self

    @property
    def bounds(self) -> tuple[float, ...]:
        """The numbers it takes."""
        return tuple(self.values)

    def check(self, updates: int) -> None:
        """Raise ValueError unless its steps ascend within the updates."""
        points = [_point(point, updates) for point in self.at]
        if any(before >= after for before, after in zip([0, *points], [*points, updates], strict=True)):
            told = ", ".join(f"{point:,}" for point in points)
            raise ValueError(f"expected at to ascend within {updates:,} updates, got {told}; correct it")

    def value(self, update: int, updates: int) -> float:
        """The number in update 0 .. updates - 1."""
        return self.values[sum(update >= _point(point, updates) for point in self.at)]

    def turns(self, updates: int) -> set[int]:
        """The updates from which on it may be 0."""
        return {0, *(_point(point, updates) for point in self.at)}


class Schedulable:
    """`Annotated[float, Field(gt=0), Schedulable()]`: a number, or a schedule all of whose numbers are such numbers.

    The type stays float, which is what formulas see: they are called on `resolved` settings only.
    """

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        number = handler(source)
        validator = SchemaValidator(number)

        def within(schedule: Ramp | Steps) -> Ramp | Steps:
            for value in schedule.bounds:
                try:
                    validator.validate_python(value)
                except ValidationError as error:
                    wanted = error.errors()[0]["msg"].removeprefix("Input should be ")
                    raise ValueError(f"expected numbers {wanted} on the whole schedule, got {value:g}; correct it") from None
            return schedule

        schedule = handler.generate_schema(Annotated[Ramp | Steps, Field(discriminator="schedule")])
        choices = {"number": number, A_SCHEDULE: core_schema.no_info_after_validator_function(within, schedule)}
        return core_schema.tagged_union_schema(choices, discriminator=_shape)


def resolved(settings: Settings, update: int, updates: int) -> Settings:
    """The same settings with every schedule replaced by its number in update 0 .. updates - 1."""
    now = {name: schedule.value(update, updates) for name, schedule in schedules(settings).items()}
    return settings.model_copy(update=now) if now else settings


def schedules(settings: BaseModel) -> dict[str, Ramp | Steps]:
    """The settings that are schedules, by name."""
    return {name: value for name, value in settings if isinstance(value, Ramp | Steps)}


def bounds(value: float) -> tuple[float, ...]:
    """The numbers that a schedulable setting may take."""
    return value.bounds if isinstance(value, Ramp | Steps) else (value,)


def _shape(value: Any) -> str:
    return A_SCHEDULE if isinstance(value, dict | Ramp | Steps) else "number"


def _point(value: float, updates: int) -> int:
    return round(value * updates) if value <= 1 else int(value)


def warmup_updates(warmup: float, updates: int) -> int:
    """The updates of a warm-up, for the optimizer and the schedules alike: below 1 a share of the updates, otherwise their number."""
    return round(warmup * updates) if warmup < 1 else int(warmup)


def _check_warmup(warmup: float) -> None:
    if warmup >= 1 and warmup != int(warmup):
        raise ValueError(f"warmup: expected a share below 1 or a whole number of updates, got {warmup:g}")


def _check_point(name: str, value: float) -> None:
    if value > 1 and value != int(value):
        raise ValueError(f"{name}: expected a share up to 1 or a whole number of updates above 1, got {value:g}; correct it")
