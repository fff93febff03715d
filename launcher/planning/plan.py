"""A run as arithmetic, before anything heavy: updates, tokens, parameters, bytes per rank, disk. No weight is loaded and no rank is asked.

`make_plan` reads the manifest and each model's config.json, counts weights on torch's meta device, and refuses what cannot work.
"""

from dataclasses import dataclass
from pathlib import Path

from data_shards.corpus import Corpus
from data_shards.stream.stream import Stream
from kd.distributed import process_group
from kd.models.config import read_config
from kd.models.sizes import model_sizes
from kd.teacher.modes import MODES
from kd.training.engine import effective_stage
from launcher.config.derived import chosen_attention, chosen_precision, updates_of
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.planning.attended import attended_tokens
from launcher.planning.checks import check_caches, check_fits, disk
from launcher.planning.cost.fit import MemoryNeed
from launcher.planning.cost.memory import MemoryPlan, head_bytes, plan_memory
from launcher.planning.cost.workload import DataWork, Workload, teacher_work, workload_of
from launcher.planning.devices.this_device import this_device
from launcher.planning.memory import StudentMemory, TeacherPlan, student_memory, teacher_plan
from launcher.planning.phases import PhasePlan, objectives_of, plan_phases, states_read
from launcher.planning.resumed import resumed_facts
from launcher.planning.shape_models import meta_model, meta_student
from launcher.planning.tokenizer_check import check_tokenizers


@dataclass(frozen=True)
class Plan:
    """The size, length and memory of a run. Tokens are positions that are not padding, special tokens included; sizes are in bytes."""

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
    precision_reason: str
    zero_stage: int
    """The stage that really runs (see kd.training.engine.effective_stage)."""
    student_layers: int
    student_parameters: int
    projections: int
    """Weights of the learned maps, which are no part of the student. This number and the next are the largest over the phases."""
    trainable: int
    """Of the student and its projections."""
    phases: tuple[PhasePlan, ...]
    """A run without phases is one, without a name."""
    memory: StudentMemory
    teachers: tuple[TeacherPlan, ...]
    logits_bytes: int
    """The logits of a chunk of each model, and all that terms make of a tile of them at once. All tokens of a chunk are selected."""
    checkpoint_bytes: int
    work: Workload
    peak: MemoryPlan
    """The memory of a rank on this machine's device, activations included."""
    disk_needed: int
    """Checkpoints that are kept, the one that is being written, and the exported student; what the folder already holds is taken off."""
    disk_free: int

    @property
    def memory_need(self) -> MemoryNeed:
        """For the check before a start."""
        return MemoryNeed(self.work, this_device())


def make_plan(config: RunConfig, world: int, corpus: Corpus | None = None) -> Plan:
    """The plan of a configuration on `world` ranks. corpus: the configuration's, where it is open.

    Raises LaunchError for batch arithmetic that does not divide and for models that do not fit the corpus. Raises KdError and DataError for
    models and shards that cannot be used. A full disk is `check_disk`'s affair: only rank 0 writes.
    """
    train = config.train
    try:
        micro_batches = train.micro_batches(world)
    except ValueError as error:
        raise LaunchError(str(error)) from None
    corpus = corpus or Corpus.open(config.data.shards, config.data.cache_folder)
    manifest = corpus.manifest
    stream = Stream(corpus, "train", config.data.stream, train.global_batch)
    updates = updates_of(config, stream)
    saved = resumed_facts(config)
    chosen = chosen_precision(config, saved)
    precision = chosen.precision
    stage = effective_stage(train.zero_stage, precision, world)
    for member in config.members.values():
        MODES[member.mode].check(member.model, read_config(member.model), world)
    teachers = {place: meta_model(member.model) for place, member in config.members.items()}
    student = meta_student(config.student, next(iter(teachers.values()), None))
    if train.activation_checkpointing:
        student.checkpoint_activations(use_reentrant=train.zero_stage == 3)  # refused here for a family whose code cannot
    for name, encoder in [*teachers.items(), ("student", student)]:
        check_fits(name, encoder, manifest, config.data.stream)
    models = {place: member.model for place, member in config.members.items()}
    check_tokenizers(models, corpus, required=len(models) > 1)
    if config.student.init != "teacher":
        check_tokenizers({"student.init": config.student.init}, corpus)
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
    heldout = _heldout_windows(config, corpus)
    planned = [teacher_plan(config.members[place], teacher, precision, world) for place, teacher in teachers.items()]
    work = workload_of(
        config,
        student,
        [
            teacher_work(config.members[place], teacher, precision, world, states)
            for (place, teacher), states in zip(teachers.items(), states_read(objectives, len(teachers)), strict=True)
        ],
        objectives,
        ranks=world,
        precision=precision,
        stage=stage,
        attention=chosen_attention(config, precision, student, saved).kernel,
        device_type=process_group.device().type,
        updates=updates,
        trainable=trainable,
        projections=projections,
        data=DataWork(
            windows_per_epoch=stream.windows_per_epoch,
            shards=len(manifest.entries("train")),
            lanes=config.data.stream.lanes,
            filled=stream.tokens_per_epoch / (stream.windows_per_epoch * config.data.window_tokens),
            document_tokens=attended_tokens(corpus, config.data.stream),
        ),
        evaluates=heldout > 0,
    )
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
        heldout_windows=heldout,
        precision=precision,
        precision_reason=chosen.reason,
        zero_stage=stage,
        student_layers=student.layers,
        student_parameters=sizes.parameters,
        projections=projections,
        trainable=trainable,
        phases=tuple(phases),
        memory=student_memory(sizes.parameters + projections, trainable, stage, precision, world),
        teachers=tuple(planned),
        logits_bytes=head_bytes(work, work.chunk_tokens),
        checkpoint_bytes=checkpoint,
        work=work,
        peak=plan_memory(work, this_device()),
        disk_needed=needed,
        disk_free=free,
    )


def _heldout_windows(config: RunConfig, corpus: Corpus) -> int:
    if not corpus.manifest.entries("heldout"):
        asks = {"evaluate.keep": config.evaluate.keep == "best", "evaluate.patience": config.evaluate.patience is not None}
        for name in (name for name, asked in asks.items() if asked):
            where = config.data.shards
            raise LaunchError(f"{name}: expected held-out documents in {where}, got none; build the shards with --heldout 0.01")
        return 0
    windows = Stream(corpus, "heldout", config.data.stream, 1).windows_per_epoch
    return min(windows, config.evaluate.windows or windows)
