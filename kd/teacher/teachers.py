"""One teacher or several: who teaches an update, and what the terms get of them.

mean: all teach every update; terms on distributions get the weighted mean (kd.objective.mixture), others one teacher that they name.
random: one teaches an update, drawn with the weights as probabilities: a pure function of seed and update, whatever ranks and restarts.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field

from kd.batch import Batch
from kd.distributed import process_group
from kd.errors import KdError
from kd.models.encoder import load_mlm
from kd.models.outputs import Decoder
from kd.models.states import Shape
from kd.objective.objective import Ensemble, ModelOutputs, Objective
from kd.teacher.cached import CachedTeacher
from kd.teacher.hidden_state_cache import DTYPES, Positions, StateCache
from kd.teacher.split import TensorParallelTeacher, Zero3Teacher, check_split
from kd.teacher.teacher import FrozenEncoder, ReplicatedTeacher, Teacher, TeacherSettings
from kd.terms import Term

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


class Teachers:
    """The teachers of a run: none, one, or several."""

    def __init__(self, members: Sequence[Teacher], weights: Sequence[float] = (1.0,), combine: str = "mean", seed: int = 1) -> None:
        self.members = members
        self.weights = shares(weights)
        self.combine = combine
        self.seed = seed
        self.shapes = [member.shape for member in members]

    def present(self, update: int) -> list[Teacher]:
        """Who teaches an update."""
        if len(self.members) > 1 and self.combine == "random":
            return [self.members[drawn(self.seed, update, self.weights)]]
        return list(self.members)

    @contextmanager
    def teach(self, update: int, batch: Batch, objective: Objective, vocabulary: int) -> Iterator[Ensemble | None]:
        """What an update's objective asks of its teachers; a sharded decoder is whole only while inside. Collective."""
        present = self.present(update)
        with ExitStack() as stack:
            outputs = {}
            for number, teacher in enumerate(present):
                needs = objective.needs_of(number)
                if not needs:
                    continue
                given = teacher(batch, objective.selected(batch), objective.teacher_states(number))
                outputs[number] = ModelOutputs(given.last, states=given.states)
                if "logits" in needs:
                    weight, bias = stack.enter_context(teacher.decoder())
                    outputs[number] = ModelOutputs(given.last, given.transformed, Decoder(weight, bias, vocabulary), given.states)
            yield Ensemble(outputs, self.weights if len(present) > 1 else (1.0,)) if outputs else None


def make_teacher(settings: TeacherSettings, precision: str, device: torch.device) -> Teacher:
    """The teacher of these settings on this rank. precision: "fp32" or "bf16", the run's. Collective for the split modes.

    Raises KdError for a model that cannot be read, has no MLM head, does not divide over the ranks, or is not that of its cache.
    """
    check_split(settings, process_group.world_size())
    module = FrozenEncoder(load_mlm(settings.model, dtype=DTYPES[settings.precision or precision]))
    if settings.cache is not None:
        cached = CachedTeacher(module, StateCache(Path(settings.cache)))
        module.to(device)
        return cached
    if settings.mode != "replicated":
        process_group.start()
    if settings.mode == "zero3":
        return Zero3Teacher(module)
    module.to(device)
    if settings.mode == "tensor_parallel" and process_group.world_size() > 1:
        return TensorParallelTeacher(module)
    return ReplicatedTeacher(module)  # also tensor_parallel on one rank, where there is nothing to split


def make_teachers(members: Sequence[MemberSettings], combine: str, seed: int, precision: str, device: torch.device) -> Teachers:
    """The teachers of these settings on this rank. precision: the run's. Collective for the split modes. KdError as make_teacher."""
    return Teachers([make_teacher(member, precision, device) for member in members], [m.weight for m in members] or (1.0,), combine, seed)


def settled(objective: Objective, student: Shape, teachers: Sequence[Shape], combine: str) -> Objective:
    """The objective for these encoders (see Objective.settled). Teachers that are drawn at random all have to fit it, so have one size."""
    if combine != "random" or len(teachers) < 2:
        return objective.settled(student, *teachers)
    sizes = [(shape.layers, shape.width, shape.heads) for shape in teachers]
    if objective.on_states and len(set(sizes)) > 1:
        told = " and ".join(f"{layers} layers x {width}, {heads} heads" for layers, width, heads in dict.fromkeys(sizes))
        kinds = ", ".join(term.kind for term in objective.on_states)
        raise KdError(
            f"teachers: expected teachers of one size for {kinds} with combine: random, got {told}; use mean, and name one a term"
        )
    return objective.settled(student, teachers[0])


def check_offers(objective: Objective, number: int, offers: frozenset[str], positions: Positions) -> None:
    """Raise KdError, one line, for a term of a settled objective that asks teacher `number` for what it does not offer, or where."""
    for place, term in zip(objective.places, objective.terms, strict=True):
        asked = objective.asked_of(term, number)
        if missing := asked - offers:
            raise KdError(
                f"{place}: expected a teacher that gives {', '.join(sorted(missing))}, got a cached one, which gives "
                f"{' and '.join(sorted(offers))}; use another mode, or drop the term"
            )
        if asked and positions == "masked" and getattr(term, "positions", "all") != "masked":
            raise KdError(
                f"{place}: expected a cache of all positions, got one of masked positions alone; "
                "fill another folder (stillhouse cache), or set the term's positions: masked"
            )


def check_assignment(terms: Mapping[str, Term], members: int, combine: str) -> None:
    """Raise KdError, one line, for a term that cannot learn from so many teachers. terms: by the setting that names them."""
    for place, term in terms.items():
        wrong = f"{place}.teacher: expected"
        if term.teacher is not None and not term.asks:
            raise KdError(f"{wrong} none for {term.kind}, which needs no teacher, got {term.teacher}; drop it")
        if term.teacher is not None and (members == 1 or combine == "random"):
            why = "with one teacher" if members == 1 else "with combine: random, where one teaches everything"
            raise KdError(f"{wrong} none {why}, got {term.teacher}; drop it")
        if term.teacher is not None and term.teacher >= members:
            raise KdError(f"{wrong} a teacher from 0 to {members - 1}, got {term.teacher}; correct it")
        if members > 1 and combine == "mean" and term.asks and term.teacher is None and not term.mixes:
            raise KdError(f"{wrong} one of 0 to {members - 1} for {term.kind}, which several cannot teach together, got none; name one")


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
