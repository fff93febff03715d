"""Phases: stretches of a run, each with its own objective, learning rate and choice of what trains.

1. `PhaseSettings` is one entry of `phases:` as a user writes it.
2. `phases_of` turns the list into `Phase`s with their updates, proven to fill the run; a run without phases is one phase.
3. `phase_at` says which one an update belongs to: a pure function, so that a checkpoint needs to say nothing about phases.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from kd.errors import KdError
from kd.terms import Term
from kd.terms.schedules import OptimizerSettings, ScheduleShape, Share, bounds, learning_rate, resolved, schedules

if TYPE_CHECKING:
    from kd.models.encoder import Encoder

PART = re.compile(r"all|embeddings|head|projections|layers( \d+(\.\.\d+)?)?")


def _part(value: str) -> str:
    if PART.fullmatch(value) is None:
        raise ValueError(f"expected all, embeddings, layers, layers 0..2, head or projections, got {value}; correct it")
    return value


TrainablePart = Annotated[str, AfterValidator(_part)]


class OptimizerOverrides(BaseModel):
    """Settings of a phase that differ from the run's optimizer; null: the run's."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    betas: tuple[Share, Share] | None = None
    epsilon: Annotated[float, Field(gt=0)] | None = None
    weight_decay: Annotated[float, Field(ge=0)] | None = None
    schedule: ScheduleShape | None = None
    warmup: Annotated[float, Field(ge=0)] | None = None
    final_share: Annotated[float, Field(ge=0, le=1)] | None = None


class PhaseSettings(BaseModel):
    """One phase of a run. One phase of a run may leave its length out: it gets the rest."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    updates: Annotated[int, Field(gt=0)] | None = None
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """The length as a share of the run."""
    objective: list[Term] | None = None
    """null: the run's."""
    optimizer: OptimizerOverrides | None = None
    """null: the run's optimizer, with the learning rate of a run without phases. Otherwise the phase has its own schedule with warm-up."""
    trains: Annotated[list[TrainablePart], Field(min_length=1)] = ["all"]
    freezes: list[TrainablePart] = []
    """Parts of `trains` that do not train."""
    optimizer_state: Literal["fresh", "continue"] = "fresh"
    """At the phase's begin: AdamW's moments and step count from zero, or kept for what trained before and still does."""

    @model_validator(mode="after")
    def _one_length(self) -> PhaseSettings:
        if self.updates is not None and self.share is not None:
            raise ValueError("share: expected either updates or share, got both; keep one")
        return self


@dataclass(frozen=True)
class Phase:
    """Updates first .. first + updates - 1 of a run of run_updates, counted from 0. name is empty where a run has no phases.

    own_course: whether learning rate runs over the phase, not over the run. Schedules of terms always run over the phase.
    place: the setting that its terms are a list of.
    """

    name: str
    first: int
    updates: int
    run_updates: int
    terms: tuple[Term, ...]
    optimizer: OptimizerSettings
    own_course: bool = False
    trains: tuple[str, ...] = ("all",)
    freezes: tuple[str, ...] = ()
    fresh: bool = True
    place: str = "objective"

    @property
    def end(self) -> int:
        """The update after its last."""
        return self.first + self.updates

    def learning_rate(self, update: int) -> float:
        """The learning rate of one of its updates, counted over the run."""
        if self.own_course:
            return learning_rate(self.optimizer, update - self.first, self.updates)
        return learning_rate(self.optimizer, update, self.run_updates)

    def trainable(self, encoder: Encoder, name: str) -> bool:
        """True if the phase trains a parameter. name: of the student's named_parameters (hf.…) or of the projections."""
        part, layer = part_of(encoder, name)
        return _named(self.trains, part, layer) and not _named(self.freezes, part, layer)


def part_of(encoder: Encoder, name: str) -> tuple[str, int | None]:
    """(embeddings | layers | head | projections, the layer's number if it is one) of a parameter.

    embeddings: all of the encoder except its layers (also relative positions and a last norm), and a decoder tied to them.
    """
    if not name.startswith("hf."):
        return "projections", None
    path, family = name.removeprefix("hf."), encoder.family
    if path.startswith(f"{family.layers}."):
        return "layers", int(path.removeprefix(f"{family.layers}.").split(".", 1)[0])
    pooler = path.startswith(f"{family.base}.pooler.")  # of a task's head
    return ("embeddings" if path.startswith(f"{family.base}.") and not pooler else "head"), None


def phases_of(settings: Sequence[PhaseSettings], terms: Sequence[Term], optimizer: OptimizerSettings, updates: int) -> tuple[Phase, ...]:
    """The phases of a run of `updates` updates. terms, optimizer: the run's own, for phases that have none.

    Raises KdError for lengths that do not add up to the run, duplicate names, and schedules that do not fit into their phase. In every
    update some weight must be above 0.
    """
    if not settings:
        whole = Phase("", 0, updates, updates, tuple(terms), optimizer)
        _check(whole, "optimizer")
        return (whole,)
    names = [phase.name for phase in settings]
    if len(set(names)) < len(names):
        raise KdError(f"phases: expected a name of its own for each, got {', '.join(names)}; rename one")
    made: list[Phase] = []
    for number, (phase, (first, end)) in enumerate(zip(settings, _borders(settings, updates), strict=True)):
        given = {} if phase.optimizer is None else phase.optimizer.model_dump(exclude_none=True)
        made.append(
            Phase(
                name=phase.name,
                first=first,
                updates=end - first,
                run_updates=updates,
                terms=tuple(terms if phase.objective is None else phase.objective),
                optimizer=optimizer.model_copy(update=given),
                own_course=phase.optimizer is not None,
                trains=tuple(phase.trains),
                freezes=tuple(phase.freezes),
                fresh=phase.optimizer_state == "fresh",
                place="objective" if phase.objective is None else f"phases.{number}.objective",
            )
        )
        _check(made[-1], f"phases.{number}.optimizer" if made[-1].own_course else "optimizer")
    return tuple(made)


def phase_at(phases: Sequence[Phase], update: int) -> Phase:
    """The phase of update 0, 1, …; the last one for updates after the end."""
    return next((phase for phase in phases if update < phase.end), phases[-1])


def check_layers(phases: Sequence[Phase], student: Encoder) -> None:
    """Raise KdError where a phase names a layer that the student does not have, or one layer of several that share their weights."""
    last = student.layers - 1
    parts = [(number, key, part) for number, phase in enumerate(phases) for key in ("trains", "freezes") for part in getattr(phase, key)]
    for number, key, part in parts:
        low, high = _range(part)
        if not low <= high <= last:
            raise KdError(f"phases.{number}.{key}: expected ascending layers from 0 to {last}, got {part}; correct it")
        if student.family.shared_layers and part.startswith("layers "):
            raise KdError(f"phases.{number}.{key}: expected layers as a whole, for they share weights, got {part}; write layers")


def _borders(settings: Sequence[PhaseSettings], updates: int) -> list[tuple[int, int]]:
    """(first, end) of every phase, without gap or overlap."""
    open_ended = [phase.name for phase in settings if phase.updates is None and phase.share is None]
    if len(open_ended) > 1:
        raise KdError(f"phases: expected a length for all but one of them, got none for {', '.join(open_ended)}; set updates or share")
    wanted = [phase.updates or (phase.share or 0.0) * updates for phase in settings]
    rest = updates - sum(wanted)
    told = " + ".join(f"{length:g}" for length in wanted)
    if rest < -1e-6 * updates:
        raise KdError(
            f"phases: expected phases within the run's {updates:,} updates, got {told} = {sum(wanted):g}: they overlap; shorten one"
        )
    if not open_ended and rest > 1e-6 * updates:
        raise KdError(f"phases: expected phases that fill the run's {updates:,} updates, got {told} = {sum(wanted):g}; lengthen one")
    ends, end = [], 0.0
    for phase, length in zip(settings, wanted, strict=True):
        end += rest if phase.name in open_ended else length
        ends.append(round(end))
    borders = list(zip([0, *ends], ends, strict=False))
    for phase, (first, last) in zip(settings, borders, strict=True):
        if first >= last:
            raise KdError(f"phases: expected at least one update for phase {phase.name}, got none of {updates:,}; lengthen it")
    return borders


def _check(phase: Phase, optimizer: str) -> None:
    """Raise KdError, before anything runs, for an update that the phase could not make. optimizer: the key of its optimizer."""
    length = phase.updates if phase.own_course else phase.run_updates
    warmup = phase.optimizer.warmup_updates(length)
    if warmup > length:
        raise KdError(f"{optimizer}.warmup: expected at most {length:,} updates, the length of its course, got {warmup:,}; shorten it")
    where = f" in phase {phase.name}" if phase.name else ""
    turns = {0}
    for number, term in enumerate(phase.terms):
        for name, schedule in schedules(term).items():
            try:
                schedule.check(phase.updates)
            except ValueError as error:
                raise KdError(f"{phase.place}.{number}.{name}: {error}") from None
            turns |= schedule.turns(phase.updates)
    if not any(max(bounds(term.weight)) > 0 for term in phase.terms):
        raise KdError(f"{phase.place}: expected at least one term with a weight above 0, got none; raise one")
    for turn in sorted(turns):
        if not any(resolved(term, turn, phase.updates).weight > 0 for term in phase.terms):
            raise KdError(f"{phase.place}: expected a weight above 0 in every update, got none in update {turn + 1:,}{where}; raise one")


def _named(parts: Sequence[str], part: str, layer: int | None) -> bool:
    """True if a part, or a layer, is among those that are named."""
    ranges = [_range(name) for name in parts if name.startswith("layers ")]
    return "all" in parts or part in parts or any(layer is not None and low <= layer <= high for low, high in ranges)


def _range(part: str) -> tuple[int, int]:
    """First and last layer of `layers 0..2` or `layers 1`; (0, 0) for any other part."""
    numbers = [int(number) for number in re.findall(r"\d+", part)]
    return (numbers[0], numbers[-1]) if numbers else (0, 0)
