"""A run as arithmetic, before anything heavy: updates, tokens, parameters, bytes per rank, disk. No weight is loaded and no rank is asked.

1. `make_plan` reads the manifest and both models' config.json, counts weights on torch's meta device, and refuses what cannot work.
2. `show` prints the plan as a table.

Memory is what weights, gradients and optimizer hold; activations, which depend on the kernels, come on top.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn

from data_shards.storage.location import Location
from data_shards.storage.manifest import Manifest
from data_shards.stream.stream import Stream
from kd.distributed import process_group
from kd.export.hugging_face import model_sizes
from kd.models.config import quiet_transformers, read_config
from kd.models.encoder import Encoder
from kd.models.loading import untrained
from kd.student.settings import StudentSettings
from kd.student.student import make_student
from kd.teacher.settings import TeacherSettings
from kd.teacher.split import check_split
from kd.training.engine import effective_stage
from kd.training.settings import CheckpointSettings
from launcher.config.derived import precision_of, updates_of
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.planning.checks import check_caches, check_fits
from launcher.planning.phases import PhasePlan, logit_chunks, objectives_of, phase_rows, plan_phases
from launcher.planning.tokenizer_check import check_tokenizers
from launcher.reporting.console import size

BYTES = {"fp32": 4, "bf16": 2}
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class StudentMemory:
    """Bytes that one rank holds for the student, by kind."""

    weights: int
    gradients: int
    masters: int
    """fp32 copies of the weights that AdamW moves; 0 where the weights are their own."""
    moments: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.masters + self.moments


@dataclass(frozen=True)
class TeacherPlan:
    """A frozen teacher: its size, and what one rank holds of it."""

    parameters: int
    bytes: int
    mode: str
    bytes_per_rank: int


@dataclass(frozen=True)
class Plan:
    """What a run will be. Tokens are positions that are not padding, special tokens included; sizes are in bytes."""

    ranks: int
    micro_batch: int
    micro_batches: int
    """Forward passes per rank and update."""
    windows_per_update: int
    tokens_per_update: float
    updates: int
    warmup_updates: int
    windows: int
    tokens: int
    epochs: float
    windows_per_epoch: int
    heldout_windows: int
    """Scored at each evaluation during the run."""
    precision: str
    zero_stage: int
    """The stage that really runs (see kd.training.engine.effective_stage)."""
    student_layers: int
    student_parameters: int
    projections: int
    """Weights of the learned maps beside the student: like the next, at most, over the phases."""
    trainable: int
    """Of the student and its projections."""
    phases: tuple[PhasePlan, ...]
    """A run without phases is one, without a name."""
    memory: StudentMemory
    teachers: tuple[TeacherPlan, ...]
    logits_bytes: int
    """The largest chunk of logits, with all that terms make of it at once: the student's, its teachers', copies and gradients."""
    checkpoint_bytes: int
    disk_needed: int
    """Checkpoints that are kept, the one that is being written, and the exported student; what the folder already holds is taken off."""
    disk_free: int


def make_plan(config: RunConfig, world: int) -> Plan:
    """The plan of a configuration on `world` ranks.

    Raises LaunchError for batch arithmetic that does not divide, models that do not fit the corpus and, on rank 0, a disk that is too
    small; KdError and DataError for models and shards that cannot be used.
    """
    train = config.train
    try:
        micro_batches = train.micro_batches(world)
    except ValueError as error:
        raise LaunchError(str(error)) from None
    manifest = Manifest.load(config.data.shards)
    stream = Stream(config.data.shards, "train", config.data.stream, train.global_batch)
    updates = updates_of(config, stream)
    precision = precision_of(config)
    stage = effective_stage(train.zero_stage, precision)
    for member in config.members.values():
        check_split(member, world)
    teachers = {place: meta_model(member.model) for place, member in config.members.items()}
    student = meta_student(config.student, next(iter(teachers.values()), None))
    if train.activation_checkpointing:
        student.checkpoint_activations(use_reentrant=train.zero_stage == 3)  # refused here for a family whose code cannot
    for name, encoder in [*teachers.items(), ("student", student)]:
        check_fits(name, encoder, manifest, config.data.stream)
    location = Location.of(config.data.shards, config.data.cache_folder)
    models = {place: member.model for place, member in config.members.items()}
    check_tokenizers(models, location, manifest, required=len(models) > 1)
    if config.student.init != "teacher":
        check_tokenizers({"student.init": config.student.init}, location, manifest)
    objectives = objectives_of(config, updates, student, list(teachers.values()))
    check_caches(config, list(teachers.values()), objectives, precision, stream, updates * train.global_batch)
    sizes = model_sizes(student)
    tokens_per_update = stream.tokens_per_epoch / stream.windows_per_epoch * train.global_batch
    phases = plan_phases(config.phases_of(updates), objectives, student, tokens_per_update)
    projections, trainable = max(phase.projections for phase in phases), max(phase.trainable for phase in phases)
    checkpoint = 4 * (sizes.parameters + projections) + 8 * trainable  # fp32 weights, and two fp32 moments of those that train
    needed, free = disk(Path(config.run.folder), checkpoint, 4 * sizes.parameters, config.checkpoint)
    windows = updates * train.global_batch
    epochs = windows / stream.windows_per_epoch
    chunk = min(train.chunk(process_group.device().type), train.micro_batch * config.data.window_tokens)
    return Plan(
        ranks=world,
        micro_batch=train.micro_batch,
        micro_batches=micro_batches,
        windows_per_update=train.global_batch,
        tokens_per_update=tokens_per_update,
        updates=updates,
        warmup_updates=config.optimizer.warmup_updates(updates),
        windows=windows,
        tokens=round(epochs * stream.tokens_per_epoch),
        epochs=epochs,
        windows_per_epoch=stream.windows_per_epoch,
        heldout_windows=_heldout_windows(config, manifest),
        precision=precision,
        zero_stage=stage,
        student_layers=student.layers,
        student_parameters=sizes.parameters,
        projections=projections,
        trainable=trainable,
        phases=tuple(phases),
        memory=student_memory(sizes.parameters + projections, trainable, stage, precision, world),
        teachers=tuple(_teacher_plan(config.members[place], teacher, precision, world) for place, teacher in teachers.items()),
        logits_bytes=4 * chunk * manifest.vocabulary_size * max(map(logit_chunks, objectives)),
        checkpoint_bytes=checkpoint,
        disk_needed=needed,
        disk_free=free,
    )


def meta_model(path: str, new_head: bool = False) -> Encoder:
    """A model's shape without its weights, from config.json alone."""
    config = read_config(path)
    if new_head:
        config.tie_word_embeddings = True
    with torch.device("meta"):
        return untrained(config)


def meta_student(settings: StudentSettings, teacher: Encoder | None) -> Encoder:
    """The shape of the student of these settings, with what of it trains. Raises KdError as make_student does."""
    if settings.init != "teacher":  # a folder's model is what one makes of all of its own layers
        teacher = meta_model(settings.init, settings.new_head)
        same = {"init": "teacher", "layers": "first", "count": teacher.layers, "architecture": "same", "new_head": False}
        settings = settings.model_copy(update=same)
    with torch.device("meta"), quiet_transformers():
        return make_student(settings, teacher, seed=0)


def student_memory(parameters: int, trainable: int, stage: int, precision: str, world: int) -> StudentMemory:
    """What one rank holds of a student under ZeRO: optimizer state shared from stage 1, gradients from 2, weights from 3.

    Stage 0 in fp32 is plain AdamW, whose weights are their own masters; everywhere else DeepSpeed keeps fp32 copies.
    """
    masters = 0 if stage == 0 and precision == "fp32" else 4 * trainable
    return StudentMemory(
        weights=_share(BYTES[precision] * parameters, world if stage >= 3 else 1),
        gradients=_share(4 * trainable, world if stage >= 2 else 1),
        masters=_share(masters, world if stage >= 1 else 1),
        moments=_share(8 * trainable, world if stage >= 1 else 1),
    )


def disk(folder: Path, checkpoint: int, export: int, settings: CheckpointSettings) -> tuple[int, int]:
    """(bytes a run still has to write, bytes free where it writes). LaunchError on rank 0, which writes, when they cannot fit."""
    existing = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    kept = (settings.keep_last + settings.keep_best + 1) * checkpoint
    there = sum(file.stat().st_size for file in (folder / CHECKPOINTS).rglob("*") if file.is_file())
    needed = max(kept - there, checkpoint) + export
    free = shutil.disk_usage(existing).free
    if needed > free and os.environ.get("RANK", "0") == "0":
        raise LaunchError(
            f"run.folder: expected {size(needed)} free for checkpoints, got {size(free)} in {existing}; "
            "free space, lower checkpoint.keep_last or keep_best, or choose another folder"
        )
    return needed, free


def show(plan: Plan, console: Console | None = None) -> None:
    """Print a plan as a table of two columns."""
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False)
    table.add_column(style="bold")
    table.add_column()
    for name, value in rows(plan):
        table.add_row(name, value)
    (console or Console()).print(table)


def rows(plan: Plan) -> Iterator[tuple[str, str]]:
    """The plan in words, a line at a time."""
    ranks = "1 rank" if plan.ranks == 1 else f"{plan.ranks} ranks"
    forward = f"{ranks} x {plan.micro_batches} micro-batches x {plan.micro_batch} windows"
    yield "an update", f"{forward} = {plan.windows_per_update:,} windows, {plan.tokens_per_update:,.0f} tokens"
    yield "the run", f"{plan.updates:,} updates ({plan.warmup_updates:,} of warm-up), {plan.windows:,} windows, {plan.tokens:,} tokens"
    yield from phase_rows(plan.phases)
    yield (
        "the corpus",
        f"{plan.windows_per_epoch:,} windows, read {plan.epochs:.3g} times; {plan.heldout_windows:,} held-out windows scored",
    )
    beside = f", {plan.projections:,} more in projections" if plan.projections else ""
    trains = "" if plan.trainable == plan.student_parameters + plan.projections else f", {plan.trainable:,} of them trained"
    yield "student", f"{plan.student_layers} layers, {plan.student_parameters:,} parameters{beside}{trains}"
    if not plan.teachers:
        yield "teacher", "none"
    for number, teacher in enumerate(plan.teachers):
        which = f"teacher {number}" if len(plan.teachers) > 1 else "teacher"
        yield which, f"{teacher.parameters:,} parameters, {size(teacher.bytes)}, {teacher.mode}"
        yield f"a rank holds: {which}", size(teacher.bytes_per_rank)
    kinds = f"weights {size(plan.memory.weights)}, gradients {size(plan.memory.gradients)}"
    masters = f"masters {size(plan.memory.masters)}, moments {size(plan.memory.moments)}"
    yield "a rank holds: student", f"{size(plan.memory.total)} in {plan.precision}, ZeRO-{plan.zero_stage} ({kinds}, {masters})"
    yield "a rank holds: logits", f"{size(plan.logits_bytes)} at most"
    yield "a checkpoint", size(plan.checkpoint_bytes)
    yield "disk", f"{size(plan.disk_needed)} needed, {size(plan.disk_free)} free"


def _teacher_plan(settings: TeacherSettings, teacher: Encoder, precision: str, world: int) -> TeacherPlan:
    each = BYTES[settings.precision or precision]
    parameters = model_sizes(teacher).parameters
    held = sum(_held(settings.mode, teacher, name, weight, world) for name, weight in teacher.hf.named_parameters())
    return TeacherPlan(parameters, each * parameters, settings.mode, each * held)


def _held(mode: str, teacher: Encoder, name: str, weight: nn.Parameter, world: int) -> int:
    """How many elements of a teacher's weight a rank keeps: its share of matrices (tensor_parallel: of layers); cached: no layers."""
    if mode == "cached" and name.startswith(f"{teacher.family.layers}."):
        return 0
    split = mode == "zero3" or (mode == "tensor_parallel" and name.startswith(f"{teacher.family.layers}."))
    return _share(weight.numel(), world if split and weight.dim() >= 2 else 1)


def _heldout_windows(config: RunConfig, manifest: Manifest) -> int:
    if not manifest.entries("heldout"):
        return 0
    there = Stream(config.data.shards, "heldout", config.data.stream, 1).windows_per_epoch
    return min(there, config.evaluate.windows or there)


def _share(count: int, parts: int) -> int:
    return -(-count // parts)
