"""The phases of a run as arithmetic: for launcher/planning/plan.py, before any weight is loaded."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from kd.models.encoder import Encoder
from kd.objective.objective import Objective
from kd.student.settings import chosen_layers
from kd.teacher.teachers import fit_objective
from kd.terms.base import has_layer_map
from kd.terms.layer_map import LayerSources, check_learned, resolve_layer_map
from kd.training.phases import Phase, check_layers
from launcher.config.run_config import AnyRunConfig
from launcher.errors import LaunchError
from launcher.text import counted


@dataclass(frozen=True)
class PhasePlan:
    """One phase of a run: its updates from 1, what it will see, and how many weights train."""

    name: str
    first: int
    last: int
    tokens: int
    trainable: int
    """Projections included."""
    projections: int
    """Weights of the learned maps, which are no part of the student, trained or not."""
    objective: str
    learning_rate: float
    """The peak of its own course; that of the run's where it has none."""
    optimizer_state: str


def objectives_of(config: AnyRunConfig, updates: int, student: Encoder, teachers: list[Encoder]) -> list[Objective]:
    """The objective of each phase. A map of `cka`, not known before the run, counts as `uniform`.

    Raises KdError for a term that the student and its teachers do not fit.
    """
    phases = config.phases_of(updates)
    learned = {}
    for number in {term.teacher or 0 for phase in phases for term in phase.terms if has_layer_map(term, "cka")}:
        check_learned(student.layers, teachers[number].layers)
        learned[number] = resolve_layer_map("uniform", student.layers, teachers[number].layers, "")
    copies = bool(teachers) and config.student.init == "teacher"
    sources = LayerSources(chosen_layers(config.student, teachers[0].layers, config.train.seed) if copies else None, learned)
    shapes = [teacher.shape for teacher in teachers]
    return [
        fit_objective(Objective(phase.terms, 1, phase.place), student.shape, shapes, config.teacher_mixing, sources) for phase in phases
    ]


def plan_phases(phases: Sequence[Phase], objectives: Sequence[Objective], student: Encoder, tokens_per_update: float) -> list[PhasePlan]:
    """The plan of each phase. objectives: of each phase, with layer maps resolved.

    KdError for one that names a layer too many, LaunchError for one in which nothing trains.
    """
    check_layers(phases, student)
    weights = [(name, weight.numel()) for name, weight in student.named_parameters() if weight.requires_grad]
    learned = [{name: (student.width + 1) * width for name, width in objective.projections.items()} for objective in objectives]
    plans = [
        PhasePlan(
            name=phase.name,
            first=phase.first + 1,
            last=phase.end,
            tokens=round(phase.updates * tokens_per_update),
            trainable=sum(count for name, count in [*weights, *projections.items()] if phase.trainable(student, name)),
            projections=sum(projections.values()),
            objective=", ".join(term.kind for term in phase.terms),
            learning_rate=phase.optimizer.learning_rate,
            optimizer_state="fresh" if phase.fresh else "continue",
        )
        for phase, projections in zip(phases, learned, strict=True)
    ]
    for number, (plan, phase) in enumerate(zip(plans, phases, strict=True)):
        if not plan.trainable and phase.name:
            raise LaunchError(
                f"phases.{number}.trains: expected something that trains in phase {phase.name}, got nothing; name another part"
            )
    return plans


def logit_copies(objective: Objective) -> int:
    """Most [tile, V] in fp32 at one time (kd.objective.vocabulary_head, kd.objective.teacher_outputs); objective: layer maps resolved."""
    terms = objective.on_logits
    if not terms:
        return 0
    mixed = {str(term.target_temperature) for term in terms if term.required_outputs and term.teacher is None}
    mixtures = 2 * len(mixed) + 1 if logit_teachers(objective) > 1 and mixed else 0  # each once more, times its temperature
    return 1 + logit_teachers(objective) + mixtures + sum(term.copies for term in terms)


def logit_teachers(objective: Objective) -> int:
    """The number of teachers whose logits the terms read."""
    return sum("logits" in objective.needs_of(number) for number in range(max(1, len(objective.teachers))))


def states_read(objectives: Sequence[Objective], teachers: int) -> list[int]:
    """The number of hidden tensors that terms read of each teacher, the most over the phases."""
    return [max((len(objective.teacher_states(number)) for objective in objectives), default=0) for number in range(teachers)]


def phase_rows(plans: Sequence[PhasePlan]) -> Iterator[tuple[str, str]]:
    """The plans in words, a line each; none for a run without phases."""
    for number, plan in enumerate(plans, start=1):
        if plan.name:
            state = "" if number == 1 else f", optimizer state: {plan.optimizer_state}"
            what = f"{plan.objective}; {plan.trainable:,} parameters train, learning rate {plan.learning_rate:.3g}{state}"
            yield f"phase {number}: {plan.name}", f"updates {plan.first:,} to {plan.last:,}, {counted(plan.tokens, 'token')}: {what}"
