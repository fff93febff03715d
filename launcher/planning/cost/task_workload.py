"""The work of a run on a task as a Workload: rows instead of windows, a small head instead of a vocabulary."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from kd.models.encoder import Encoder
from kd.objective.objective import Objective
from kd.teacher.modes import MODES
from kd.terms.base import AttentionTerm
from launcher.config.task_config import TaskRunConfig
from launcher.planning.cost.activations import count_activations
from launcher.planning.cost.workload import DataWork, ModelSize, TaskWork, TeacherWork, Workload, size_of, teacher_kernel
from launcher.planning.phases import states_read


@dataclass(frozen=True)
class TaskRows:
    """The rows of a task as the planner counts them.

    count: of an epoch. longest, mean: tokens of the longest row, and of the mean row. bytes: of the texts in memory.
    columns: numbers that the head gives.
    """

    count: int
    longest: int
    mean: int
    bytes: int
    columns: int


def task_workload(
    config: TaskRunConfig,
    student: Encoder,
    teachers: Sequence[Encoder],
    objectives: Sequence[Objective],
    rows: TaskRows,
    kept: Sequence[tuple[bool, bool, int]],
    *,
    ranks: int,
    precision: str,
    stage: int,
    attention: str,
    updates: int,
    trainable: int,
    projections: int,
    device_type: str,
) -> Workload:
    """The work of a task's configuration. student, teachers: masked-language models on the meta device, of which the bodies count.

    kept: by teacher, (its outputs are computed once, its layers run in updates, bytes of those outputs).
    """
    train = config.train
    states = states_read(objectives, len(teachers))
    work = []
    for member, encoder, (once, computes, _), count in zip(config.members.values(), teachers, kept, states, strict=True):
        runs = computes or not once
        held = MODES[member.mode].elements_per_rank(encoder, ranks) if runs else 0
        work.append(
            TeacherWork(body_of(encoder, rows.columns), member.mode if runs else "cached", member.precision or precision, held, count)
        )
    on_states = [term for objective in objectives for term in objective.on_states]
    relations = [term for term in on_states if isinstance(term, AttentionTerm)]
    body = body_of(student, rows.columns)
    return Workload(
        student=body,
        trainable=min(trainable, body.parameters + projections),
        projections=projections,
        teachers=tuple(work),
        ranks=ranks,
        precision=precision,
        stage=stage,
        checkpointing=train.activation_checkpointing,
        attention=attention,
        window=rows.longest,
        micro_batch=train.micro_batch,
        global_batch=train.global_batch,
        updates=updates,
        masked=0.0,
        all_logits=False,
        logit_terms=0,
        logit_copies=0,
        logit_teachers=0,
        chunk_tokens=0,
        tile_tokens=0,
        state_pairs=sum(len(term.pairs) for term in on_states if not isinstance(term, AttentionTerm)),
        relation_heads=sum(len(term.pairs) for term in relations) * body.heads,
        activations=count_activations(student, attention, rows.longest, precision),
        data=DataWork(windows_per_epoch=rows.count),
        evaluate_batch=config.evaluate.batch,
        student_from=config.student.init,
        row_tokens=min(rows.mean, rows.longest),
        task=TaskWork(rows.bytes, sum(size for once, _, size in kept if once)),
        teacher_attention=teacher_kernel(device_type, precision, config.row_tokens),
    )


def body_of(encoder: Encoder, columns: int) -> ModelSize:
    """The sizes of an encoder with a task's head: a dense layer and a classifier instead of the head of a masked-language model."""
    size = size_of(encoder)
    mine = encoder.hf.named_parameters()
    body = sum(weight.numel() for name, weight in mine if name.startswith(f"{encoder.family.base}."))
    return replace(size, parameters=body + (size.width + 1) * (size.width + columns))
