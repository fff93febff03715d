"""A run on a task as arithmetic: rows, updates, parameters, bytes. No weight is loaded."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from kd.models.config import read_config
from kd.teacher.modes import MODES
from kd.training.engine import effective_stage
from launcher.config.derived import precision_of, updates_of
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.planning.checks import disk
from launcher.planning.memory import StudentMemory, student_memory
from launcher.planning.phases import objectives_of, plan_phases
from launcher.planning.shape_models import meta_model, meta_student
from launcher.tasks.source import TaskSource
from launcher.text import size


@dataclass(frozen=True)
class TaskPlan:
    """The numbers of a planned run on a task. Sizes are in bytes."""

    ranks: int
    micro_batch: int
    micro_batches: int
    global_batch: int
    updates: int
    warmup_updates: int
    epochs: float
    rows: dict[str, int]
    kind: str
    labels: tuple[str, ...]
    precision: str
    zero_stage: int
    student_layers: int
    student_parameters: int
    """Of the encoder, without the task's head."""
    teachers: tuple[str, ...]
    memory: StudentMemory
    disk_needed: int
    disk_free: int


@dataclass(frozen=True)
class _Rows:
    windows_per_epoch: int


def make_task_plan(config: TaskRunConfig, source: TaskSource, world: int) -> TaskPlan:
    """The plan of a run on `world` ranks.

    Raises LaunchError for batch arithmetic that does not divide, KdError for models that do not fit the objective.
    """
    train = config.train
    try:
        micro_batches = train.micro_batches(world)
    except ValueError as error:
        raise LaunchError(str(error)) from None
    for member in config.members.values():
        MODES[member.mode].check(member.model, read_config(member.model), world)
    rows = len(source.splits["train"]) + len(source.splits.get("unlabelled", ()))
    if rows < train.global_batch:
        raise LaunchError(f"data.train: expected at least {train.global_batch} rows, a global batch, got {rows}; lower train.global_batch")
    updates, precision = updates_of(config, _Rows(rows)), precision_of(config)
    teachers = [meta_model(member.model) for member in config.members.values()]
    student = meta_student(config.student, teachers[0] if teachers else None)
    phases = config.phases_of(updates)
    plans = plan_phases(phases, objectives_of(config, updates, student, teachers), student, 0.0)
    body = sum(weight.numel() for name, weight in student.hf.named_parameters() if name.startswith(f"{student.family.base}."))
    projections, trainable = max(phase.projections for phase in plans), max(phase.trainable for phase in plans)
    needed, free = disk(Path(config.run.folder), 4 * (body + projections) + 8 * trainable, 4 * body, config.checkpoint)
    stage = effective_stage(train.zero_stage, precision)
    return TaskPlan(
        ranks=world,
        micro_batch=train.micro_batch,
        micro_batches=micro_batches,
        global_batch=train.global_batch,
        updates=updates,
        warmup_updates=config.optimizer.warmup_updates(updates),
        epochs=updates * train.global_batch / rows,
        rows={name: len(examples) for name, examples in source.splits.items()},
        kind=config.data.kind,
        labels=tuple(source.labels),
        precision=precision,
        zero_stage=stage,
        student_layers=student.layers,
        student_parameters=body,
        teachers=tuple(f"{member.model} ({member.mode})" for member in config.members.values()),
        memory=student_memory(body + projections, min(trainable, body + projections), stage, precision, world),
        disk_needed=needed,
        disk_free=free,
    )


def task_rows(plan: TaskPlan) -> Iterator[tuple[str, str]]:
    """The plan in words, a line at a time."""
    ranks = "1 rank" if plan.ranks == 1 else f"{plan.ranks} ranks"
    yield "the task", plan.kind.replace("_", " ") + (f": {', '.join(plan.labels[:12])}" if plan.labels else "")
    yield "the data", ", ".join(f"{count:,} rows of {name}" for name, count in plan.rows.items())
    yield "an update", f"{ranks} x {plan.micro_batches} micro-batches x {plan.micro_batch} rows = {plan.global_batch:,} rows"
    yield "the run", f"{plan.updates:,} updates ({plan.warmup_updates:,} of warm-up), {plan.epochs:.3g} epochs"
    yield "the student", f"{plan.student_layers} layers, {plan.student_parameters:,} parameters and a head"
    yield "the teacher", ", ".join(plan.teachers) or "none: the run fine-tunes"
    yield "a rank holds", f"{size(plan.memory.total)} of the student ({plan.precision}, ZeRO {plan.zero_stage}); activations come on top"
    yield "the disk", f"{size(plan.disk_needed)} needed, {size(plan.disk_free)} free"
