"""The work of a run as numbers: sizes of the models, batch arithmetic, loss terms, data. All other files of this folder read it alone."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from kd.kernels import fp32_products
from kd.models.attention import attention_choice
from kd.models.encoder import Encoder
from kd.models.sizes import model_sizes
from kd.objective.chunks import chunk_rows, tile_rows
from kd.objective.objective import Objective
from kd.teacher.modes import MODES
from kd.teacher.settings import TeacherSettings
from kd.terms.base import AttentionTerm
from launcher.config.run_config import RunConfig
from launcher.planning.cost.activations import Activations, count_activations
from launcher.planning.phases import logit_copies, logit_teachers

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}


@dataclass(frozen=True)
class ModelSize:
    """The sizes of one encoder. parameters: tied weights once."""

    layers: int
    width: int
    inner: int
    heads: int
    vocabulary: int
    parameters: int
    layer_weights: int
    """Weights of all matrices that a token is multiplied with in the layers. A shared layer counts once for each pass."""
    layer_parameters: int
    """Parameters of the layers: what a cached teacher does not hold."""
    largest: int
    """Parameters of the largest matrix."""

    @property
    def table(self) -> int:
        """Weights of the word embeddings, and of the decoder."""
        return self.vocabulary * self.width


@dataclass(frozen=True)
class TeacherWork:
    """One frozen teacher. elements_per_rank: weights that a rank keeps; states: hidden tensors [B, S, D] that terms read of a pass."""

    size: ModelSize
    mode: str
    precision: str
    elements_per_rank: int
    states: int = 0


@dataclass(frozen=True)
class DataWork:
    """The corpus of a run. windows_per_epoch 0: not known. filled: the share of a window's positions that is no padding."""

    windows_per_epoch: int = 0
    shards: int = 0
    lanes: int = 0
    filled: float = 1.0
    document_tokens: int = 0
    """The mean over positions of the length of their document in their window; 0: windows are computed whole."""


@dataclass(frozen=True)
class TaskWork:
    """A run on a task, in bytes of host memory. rows: texts of all splits. outputs: of teachers that are computed once, mapped."""

    rows: int
    outputs: int


@dataclass(frozen=True)
class Workload:
    """One run on `ranks` ranks. Windows have `window` positions."""

    student: ModelSize
    trainable: int
    """Weights that train, projections included."""
    projections: int
    teachers: tuple[TeacherWork, ...]
    ranks: int
    precision: str
    stage: int
    checkpointing: bool
    attention: str
    window: int
    micro_batch: int
    global_batch: int
    updates: int
    masked: float
    """The share of real positions that is predicted."""
    all_logits: bool
    """True if a term reads logits at all positions; False: at the predicted ones."""
    logit_terms: int
    logit_copies: int
    """Tensors [tile, V] in fp32 that exist at once."""
    logit_teachers: int
    """Teachers whose logits terms read."""
    chunk_tokens: int
    """Rows of logits that exist at once, in the weights' dtype."""
    tile_tokens: int
    """Rows of logits that exist at once in fp32."""
    state_pairs: int
    """Pairs of hidden states that terms compare."""
    relation_heads: int
    """Heads whose attention maps terms compare, over all pairs of layers."""
    activations: Activations
    """Of the student's forward pass, a window."""
    data: DataWork = DataWork()
    evaluate_batch: int = 0
    """Windows at a time of an evaluation; 0: nothing is held out."""
    student_from: str = "teacher"
    """teacher: the student is made from the first teacher's layers, which are in memory at the same time."""
    task: TaskWork | None = None
    """None: the run is on text."""
    row_tokens: int = 0
    """Mean positions of a task's row. Batches hold rows of like length, so this counts for time; `window`, the longest, for memory."""
    teacher_attention: str = "sdpa"
    """The kernel of the teachers."""

    @property
    def timed(self) -> "Workload":
        """The same work with windows as long as they are on average."""
        return replace(self, window=self.row_tokens) if self.row_tokens else self

    @property
    def micro_batches(self) -> int:
        """Forward passes per rank and update."""
        return max(1, self.global_batch // (self.micro_batch * self.ranks))

    @property
    def positions(self) -> int:
        """Positions of a micro-batch."""
        return self.micro_batch * self.window

    def attended(self, kernel: str) -> int:
        """Positions that a position attends to, on average."""
        return self.data.document_tokens or self.window if kernel == "documents" else self.window

    @property
    def logit_positions(self) -> int:
        """Positions of a micro-batch at which logits are computed."""
        if not self.logit_terms:
            return 0
        return round(self.positions * self.data.filled * (1.0 if self.all_logits else self.masked))

    @property
    def tokens_per_update(self) -> float:
        """Positions of an update that are no padding."""
        return self.global_batch * self.window * self.data.filled


def size_of(encoder: Encoder) -> ModelSize:
    """The sizes of an encoder, also on the meta device."""
    family = encoder.family
    layers = f"{family.layers}."
    mine = [weight for name, weight in encoder.hf.named_parameters() if name.startswith(layers)]
    parameters = sum(weight.numel() for weight in mine)
    passes = encoder.layers if family.shared_layers else 1
    return ModelSize(
        layers=encoder.layers,
        width=encoder.width,
        inner=int(getattr(encoder.hf.config, family.config.inner)),
        heads=encoder.heads,
        vocabulary=encoder.vocabulary,
        parameters=model_sizes(encoder).parameters,
        layer_weights=passes * sum(weight.numel() for weight in mine if weight.dim() >= 2),
        layer_parameters=parameters,
        largest=max(weight.numel() for weight in encoder.hf.parameters()),
    )


def teacher_work(settings: TeacherSettings, teacher: Encoder, precision: str, ranks: int, states: int) -> TeacherWork:
    """A teacher of a configuration. teacher: on the meta device; precision: the run's; states: hidden tensors that terms read."""
    held = MODES[settings.mode].elements_per_rank(teacher, ranks)
    return TeacherWork(size_of(teacher), settings.mode, settings.precision or precision, held, states)


def workload_of(
    config: RunConfig,
    student: Encoder,
    teachers: Sequence[TeacherWork],
    objectives: Sequence[Objective],
    *,
    ranks: int,
    precision: str,
    stage: int,
    attention: str,
    device_type: str,
    updates: int,
    trainable: int,
    projections: int,
    data: DataWork,
    evaluates: bool,
) -> Workload:
    """The work of a configuration. student: on the meta device; objectives: of each phase, with layer maps resolved.

    device_type: cpu or cuda.
    """
    train, size = config.train, size_of(student)
    on_logits = [term for objective in objectives for term in objective.on_logits]
    on_states = [term for objective in objectives for term in objective.on_states]
    relations = [term for term in on_states if isinstance(term, AttentionTerm)]
    positions = train.micro_batch * config.data.window_tokens
    chunk = min(chunk_rows(train.chunk_tokens, size.vocabulary, BYTES[precision], device_type), positions)
    return Workload(
        student=size,
        trainable=trainable,
        projections=projections,
        teachers=tuple(teachers),
        ranks=ranks,
        precision=precision,
        stage=stage,
        checkpointing=train.activation_checkpointing,
        attention=attention,
        window=config.data.window_tokens,
        micro_batch=train.micro_batch,
        global_batch=train.global_batch,
        updates=updates,
        masked=config.data.masking.rate,
        all_logits=any(not term.masked_only for term in on_logits),
        logit_terms=max((len(objective.on_logits) for objective in objectives), default=0),
        logit_copies=max(map(logit_copies, objectives)),
        logit_teachers=max(map(logit_teachers, objectives)),
        chunk_tokens=chunk,
        tile_tokens=tile_rows(chunk, size.vocabulary, device_type, torch.get_num_threads()),
        state_pairs=sum(len(term.pairs) for term in on_states if not isinstance(term, AttentionTerm)),
        relation_heads=sum(len(term.pairs) for term in relations) * size.heads,
        activations=count_activations(student, attention, config.data.window_tokens, precision, data.document_tokens),
        data=data,
        evaluate_batch=config.evaluate.batch if evaluates else 0,
        student_from=config.student.init,
        teacher_attention=teacher_kernel(device_type, precision, config.row_tokens),
    )


def teacher_kernel(device_type: str, precision: str, window: int) -> str:
    """The attention of teachers on this kind of device; on a CPU, this processor decides."""
    return attention_choice.of_teacher(device_type, precision, window, fp32_products.gains())
