"""A run on a task as arithmetic: rows, updates, parameters, bytes. No weight is loaded."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from kd.distributed import process_group
from kd.distributed.precision import Choice
from kd.models.config import read_config
from kd.models.encoder import Encoder
from kd.teacher.modes import MODES
from kd.training.engine import effective_stage
from launcher.config.derived import chosen_attention, chosen_precision, updates_of
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.planning.checks import disk
from launcher.planning.cost.fit import MemoryNeed
from launcher.planning.cost.from_config import attention_on, precision_on
from launcher.planning.cost.memory import plan_memory
from launcher.planning.cost.task_workload import TaskRows, task_workload
from launcher.planning.cost.workload import Workload
from launcher.planning.devices.devices import Device
from launcher.planning.devices.this_device import this_device
from launcher.planning.memory import StudentMemory, student_memory
from launcher.planning.phases import objectives_of, plan_phases
from launcher.planning.resumed import resumed_facts
from launcher.planning.shape_models import meta_model, meta_student
from launcher.planning.table import memory_rows
from launcher.tasks.augment import most_rows, read_augmented
from launcher.tasks.caching import caching_of
from launcher.tasks.source import AUGMENTED, TaskSource, base_model
from launcher.tasks.teachers import check_length
from launcher.text import counted, size


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
    to_augment: int
    """The most rows that data.augment has yet to make."""
    kind: str
    labels: tuple[str, ...]
    precision: str
    precision_reason: str
    zero_stage: int
    student_layers: int
    student_parameters: int
    """Of the encoder, without the task's head."""
    teachers: tuple[str, ...]
    outputs: tuple[str, ...]
    """By teacher: whether its outputs are computed once, and the memory that they take."""
    memory: StudentMemory
    disk_needed: int
    disk_free: int
    work: Callable[[], Workload] | None = None
    """Reads the longest rows; None: the models are not there yet."""

    @cached_property
    def memory_need(self) -> MemoryNeed | None:
        """For the check before a start."""
        return None if self.work is None else MemoryNeed(self.work(), this_device())


BIN = 8
"""A batch is as wide as its longest row, rounded up to this (data_shards/tasks/encoding/batches.py)."""


@dataclass(frozen=True)
class _Rows:
    windows_per_epoch: int


def make_task_plan(
    config: TaskRunConfig, source: TaskSource, world: int, shapes: Sequence[Encoder] | None = None, device: Device | None = None
) -> TaskPlan:
    """The plan of a run on `world` ranks. shapes: the teachers on the meta device, where their folders are not there yet.

    device: the one to plan for; None: this machine's.

    Raises LaunchError for batch arithmetic that does not divide, KdError for models that do not fit the objective.
    """
    train = config.train
    try:
        micro_batches = train.micro_batches(world)
    except ValueError as error:
        raise LaunchError(str(error)) from None
    for member in config.members.values() if shapes is None else ():
        MODES[member.mode].check(member.model, read_config(member.model), world)
    made = read_augmented(source)
    rows, outputs = _sizes(config, source)
    if rows < train.global_batch:
        raise LaunchError(f"data.train: expected at least {train.global_batch} rows, a global batch, got {rows}; lower train.global_batch")
    updates = updates_of(config, _Rows(rows))
    saved = resumed_facts(config)
    chosen = chosen_precision(config, saved) if device is None else Choice(precision_on(config, device), f"for {device.name}")
    precision = chosen.precision
    teachers = [meta_model(member.model) for member in config.members.values()] if shapes is None else list(shapes)
    student = meta_student(config.student, teachers[0] if teachers else None)
    for name, encoder in [*(("the teacher", teacher) for teacher in teachers), ("the student", student)]:
        check_length(name, encoder.max_positions, config)
    phases = config.phases_of(updates)
    caching = [caching_of(config, number, phases, rows, 4 * source.columns * outputs) for number in range(len(config.members))]
    objectives = objectives_of(config, updates, student, teachers)
    plans = plan_phases(phases, objectives, student, 0.0)
    body = sum(weight.numel() for name, weight in student.hf.named_parameters() if name.startswith(f"{student.family.base}."))
    projections, trainable = max(phase.projections for phase in plans), max(phase.trainable for phase in plans)
    needed, free = disk(Path(config.run.folder), 4 * (body + projections) + 8 * trainable, 4 * body, config.checkpoint)
    stage = effective_stage(train.zero_stage, precision, world)

    def work() -> Workload:
        longest, mean = (-(-one // BIN) * BIN for one in (source.longest(base_model(config)), source.mean(base_model(config))))
        if device is None:
            kind, attention = process_group.device().type, chosen_attention(config, precision, student, saved).kernel
        else:
            kind, attention = "cpu" if device.is_cpu else "cuda", attention_on(config, precision, device, student)
        return task_workload(
            config,
            student,
            teachers,
            objectives,
            TaskRows(rows, longest, mean, source.text_bytes, source.columns),
            [(one.cached, one.computes, one.bytes) for one in caching],
            ranks=world,
            precision=precision,
            stage=stage,
            attention=attention,
            updates=updates,
            trainable=trainable,
            projections=projections,
            device_type=kind,
        )

    return TaskPlan(
        ranks=world,
        micro_batch=train.micro_batch,
        micro_batches=micro_batches,
        global_batch=train.global_batch,
        updates=updates,
        warmup_updates=config.optimizer.warmup_updates(updates),
        epochs=updates * train.global_batch / rows,
        rows={name: len(examples) for name, examples in source.splits.items()},
        to_augment=0 if made else most_rows(source),
        kind=config.data.kind,
        labels=tuple(source.labels),
        precision=precision,
        precision_reason=chosen.reason,
        zero_stage=stage,
        student_layers=student.layers,
        student_parameters=body,
        teachers=tuple(f"{member.model} ({member.mode})" for member in config.members.values()),
        outputs=tuple(one.text for one in caching),
        memory=student_memory(body + projections, min(trainable, body + projections), stage, precision, world),
        disk_needed=needed,
        disk_free=free,
        work=work if shapes is None else None,
    )


def _sizes(config: TaskRunConfig, source: TaskSource) -> tuple[int, int]:
    """(rows of an epoch, rows of outputs of a teacher on them): of question answering windows and tokens, of tagging at most the words."""
    parts = ["train", *source.unlabelled]
    if config.data.kind == "question_answering":
        encoded = [source.encoded(name, base_model(config)) for name in parts]
        return sum(len(task) for task in encoded), sum(int(task.offsets[-1]) for task in encoded)
    rows = sum(len(source.splits[name]) for name in parts)
    if config.data.kind == "tagging":
        return rows, sum(len(words) for name in parts for words in source.splits[name].words or [])
    if AUGMENTED not in source.splits:
        rows += most_rows(source)
    return rows, rows


def task_rows(plan: TaskPlan) -> Iterator[tuple[str, str]]:
    """The plan in words, a line at a time."""
    yield "the task", plan.kind.replace("_", " ") + (f": {', '.join(plan.labels[:12])}" if plan.labels else "")
    yield "the data", ", ".join(f"{count:,} rows of {name}" for name, count in plan.rows.items())
    if plan.to_augment:
        yield "augmented rows", f"at most {plan.to_augment:,}; made before the first update, once, so the run may be shorter than below"
    forward = " x ".join(
        (counted(plan.ranks, "rank"), counted(plan.micro_batches, "micro-batch", "micro-batches"), counted(plan.micro_batch, "row"))
    )
    yield "an update", f"{forward} = {counted(plan.global_batch, 'row')}"
    passes = f"{plan.epochs:.3g} epoch{'' if f'{plan.epochs:.3g}' == '1' else 's'}"
    yield "the run", f"{counted(plan.updates, 'update')} ({plan.warmup_updates:,} of warm-up), {passes}"
    yield "precision", f"{plan.precision}: {plan.precision_reason}"
    yield "the student", f"{plan.student_layers} layers, {plan.student_parameters:,} parameters and a head"
    yield "the teacher", ", ".join(plan.teachers) or "none: the run fine-tunes"
    for number, text in enumerate(plan.outputs):
        yield "its outputs" if len(plan.outputs) == 1 else f"outputs of teacher {number}", text
    yield "a rank holds", f"{size(plan.memory.total)} of the student ({plan.precision}, ZeRO {plan.zero_stage})"
    if plan.memory_need is not None:
        yield from memory_rows(plan_memory(plan.memory_need.work, plan.memory_need.device))
    yield "the disk", f"{size(plan.disk_needed)} needed, {size(plan.disk_free)} free"
