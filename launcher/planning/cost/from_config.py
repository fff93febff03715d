"""The work of a configuration on a cluster that is not this machine: no weight is read, and shards need not be there."""

import math
from dataclasses import dataclass
from pathlib import Path

from data_shards.corpus import Corpus
from data_shards.errors import DataError
from data_shards.stream.stream import Stream
from kd.kernels import fp32_products
from kd.models.attention import attention_choice
from kd.models.config import read_config
from kd.models.encoder import Encoder
from kd.models.sizes import model_sizes
from kd.teacher.modes import MODES
from kd.training.engine import effective_stage
from launcher.config.run_config import AnyRunConfig, RunConfig
from launcher.errors import LaunchError
from launcher.planning.attended import attended_tokens
from launcher.planning.checks import check_fits
from launcher.planning.cost.workload import DataWork, TeacherWork, Workload, teacher_work, workload_of
from launcher.planning.devices.devices import Device
from launcher.planning.phases import objectives_of, plan_phases, states_read
from launcher.planning.shape_models import meta_model, meta_student


@dataclass(frozen=True)
class Planned:
    """The work of a configuration. shard_bytes: of the corpus, or of a task's texts.

    checkpoint_bytes: of one checkpoint; notes: what had to be assumed."""

    work: Workload
    shard_bytes: int
    checkpoint_bytes: int
    checkpoints: int
    notes: tuple[str, ...]
    rows: int = 0
    """Of all splits of a task; 0: a run on text."""

    @property
    def disk_bytes(self) -> int:
        """Checkpoints that are kept, the one that is written, and the student."""
        return self.checkpoints * self.checkpoint_bytes + 4 * self.work.student.parameters


def work_of_config(config: RunConfig, ranks: int, device: Device, tokens: float | None = None) -> Planned:
    """The work of a configuration on `ranks` devices. tokens: the length of the run, instead of the file's.

    Raises LaunchError for batch arithmetic that does not divide and for a precision that the device lacks. So it does for a length in
    epochs without shards. Raises KdError for models and terms that do not fit.
    """
    train, window = config.train, config.data.window_tokens
    try:
        train.micro_batches(ranks)
    except ValueError as error:
        raise LaunchError(str(error)) from None
    notes: list[str] = []
    precision = precision_on(config, device)
    for member in config.members.values():
        MODES[member.mode].check(member.model, read_config(member.model), ranks)
    teachers = [meta_model(member.model) for member in config.members.values()]
    student = meta_student(config.student, teachers[0] if teachers else None)
    if train.activation_checkpointing:
        student.checkpoint_activations(use_reentrant=train.zero_stage == 3)
    corpus = _corpus(config, notes)
    data = DataWork(lanes=config.data.stream.lanes)
    shard_bytes = 0
    if corpus is not None:
        for name, encoder in [*((f"teacher {number}", one) for number, one in enumerate(teachers)), ("student", student)]:
            check_fits(name, encoder, corpus.manifest, config.data.stream)
        stream = Stream(corpus, "train", config.data.stream, train.global_batch)
        entries = corpus.manifest.entries("train")
        filled = stream.tokens_per_epoch / (stream.windows_per_epoch * window)
        data = DataWork(
            stream.windows_per_epoch, len(entries), config.data.stream.lanes, filled, attended_tokens(corpus, config.data.stream)
        )
        shard_bytes = sum(entry.bytes for entry in entries)
    updates = _updates(config, data, tokens)
    if not shard_bytes:
        shard_bytes = updates * train.global_batch * window * (2 if student.vocabulary <= 1 << 16 else 4)
        notes.append("disk of the shards: for text that is read once")
    objectives = objectives_of(config, updates, student, teachers)
    phases = plan_phases(config.phases_of(updates), objectives, student, 0.0)
    projections, trainable = max(phase.projections for phase in phases), max(phase.trainable for phase in phases)
    stage = effective_stage(train.zero_stage, precision, ranks)
    work = workload_of(
        config,
        student,
        _teachers(config, teachers, precision, ranks, states_read(objectives, len(teachers))),
        objectives,
        ranks=ranks,
        precision=precision,
        stage=stage,
        attention=attention_on(config, precision, device, student),
        device_type="cpu" if device.is_cpu else "cuda",
        updates=updates,
        trainable=trainable,
        projections=projections,
        data=data,
        evaluates=config.evaluate.every_updates is not None,
    )
    kept = config.checkpoint.keep_last + config.checkpoint.keep_best + 1
    checkpoint = 4 * (model_sizes(student).parameters + projections) + 8 * trainable
    return Planned(work, shard_bytes, checkpoint, kept, tuple(notes))


def _teachers(config: RunConfig, teachers: list[Encoder], precision: str, ranks: int, states: list[int]) -> list[TeacherWork]:
    members = config.members.values()
    return [teacher_work(member, one, precision, ranks, count) for member, one, count in zip(members, teachers, states, strict=True)]


def _corpus(config: RunConfig, notes: list[str]) -> Corpus | None:
    """The corpus, or None with a note where its folder is not on this machine."""
    folder = config.data.shards
    if "://" not in folder and not Path(folder).expanduser().exists():
        notes.append(f"data.shards: nothing at {folder}; windows count as full, and text as read once")
        return None
    try:
        return Corpus.open(folder, config.data.cache_folder)
    except DataError as error:
        if "://" not in folder:
            raise
        notes.append(f"data.shards: not read ({error}); windows count as full")
        return None


def precision_on(config: AnyRunConfig, device: Device) -> str:
    """The precision of a run on a device. Raises LaunchError for one that it lacks."""
    asked = config.train.precision
    if asked == "auto":
        return "bf16" if device.peak("bf16") else "fp32"
    if device.peak(asked) is None:
        raise LaunchError(f"train.precision: expected fp32 for {device.name}, which has no {asked}, got {asked}; set train.precision=fp32")
    return asked


def attention_on(config: AnyRunConfig, precision: str, device: Device, student: Encoder) -> str:
    """The student's attention on a device; on a CPU, this processor decides."""
    if config.train.attention != "auto":
        return config.train.attention
    kind, drops, offered = "cpu" if device.is_cpu else "cuda", student.drops_attention, student.family.kernels
    return attention_choice.of_student(kind, precision, config.row_tokens, drops, fp32_products.gains(), offered).kernel


def _updates(config: RunConfig, data: DataWork, tokens: float | None) -> int:
    """The number of updates. `train.tokens` and --tokens count positions, as a run does."""
    train = config.train
    windows: float
    if tokens is not None:
        windows = tokens / config.row_tokens
    elif train.updates is not None:
        return train.updates
    elif train.tokens is not None:
        windows = train.tokens / config.row_tokens
    elif data.windows_per_epoch:
        assert train.epochs is not None
        windows = train.epochs * data.windows_per_epoch
    else:
        raise LaunchError("train.epochs: expected shards to count, or a length, got neither; add --tokens N")
    return max(1, math.ceil(windows / train.global_batch))
