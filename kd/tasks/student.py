"""Students of a task: layers of the fine-tuned teacher, or a folder, with the task's head on top."""

import json
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForMaskedLM

from kd.batch import Batch
from kd.errors import KdError
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder
from kd.student.settings import StudentSettings
from kd.student.student import make_student, set_dropout
from kd.tasks.batch import TaskKind
from kd.tasks.loading import LoadedTask, load_with_head, untrained_task
from kd.tasks.model import TaskEncoder, is_head, set_labels


def make_task_student(
    settings: StudentSettings, teacher: TaskEncoder | None, kind: TaskKind, labels: Sequence[str], seed: int, sample: Sequence[Batch] = ()
) -> LoadedTask:
    """The student, fp32 on the CPU in train mode; deterministic in seed. `student.init: teacher` takes layers of the teacher's encoder.

    The teacher's head is copied where names and shapes agree; the other weights of the head start fresh, and are named in the result.
    Raises KdError for settings that only a masked-language model has, and as kd.student.student.make_student.
    """
    for name in ("new_head", "freeze_positions"):
        if getattr(settings, name):
            raise KdError(f"student.{name}: expected false for a task, got true; leave it out")
    if settings.init != "teacher":
        loaded = load_with_head(settings.init, kind, labels, seed)
    elif teacher is None:
        raise KdError("student.init: expected a model folder where there is no teacher, got teacher; name a folder or hub model")
    else:
        loaded = _from_teacher(settings, teacher, kind, labels, seed, sample)
    _finish(loaded.encoder, settings)
    return loaded


def task_student_of_config(settings: StudentSettings, values: dict[str, Any], kind: TaskKind) -> TaskEncoder:
    """A student of a saved model configuration, with random weights: fp32 on the CPU in train mode. A checkpoint fills in the weights."""
    with torch.random.fork_rng(devices=[]):
        student = untrained_task(AutoConfig.for_model(**values), kind)
    _finish(student, settings)
    return student.train()


def _finish(student: TaskEncoder, settings: StudentSettings) -> None:
    if settings.dropout is not None:
        set_dropout(student, settings.dropout)
    if settings.trainable == "head":
        student.requires_grad_(False)
        for weight in student.head_parameters():
            weight.requires_grad_(True)


def _from_teacher(
    settings: StudentSettings, teacher: TaskEncoder, kind: TaskKind, labels: Sequence[str], seed: int, sample: Sequence[Batch]
) -> LoadedTask:
    body = make_student(settings.model_copy(update={"dropout": None, "trainable": "all"}), _as_mlm(teacher, seed), seed, sample)
    config = AutoConfig.for_model(**json.loads(body.hf.config.to_json_string(use_diff=False)))
    set_labels(config, kind, labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = untrained_task(config, kind, teacher.hf.config._attn_implementation)
    source = body.hf.state_dict()  # and not its parameters: a tied table may have the decoder's name there
    heads = dict(teacher.hf.named_parameters()) if student.family.name == teacher.family.name else {}
    fresh = []
    with torch.no_grad():
        for name, weight in student.hf.named_parameters():
            if not is_head(name, student.family.base) and name in source:
                weight.copy_(source[name])
            elif name in heads and heads[name].shape == weight.shape:
                in_order = teacher.order is not None and _is_last(teacher, name)
                weight.copy_(heads[name][teacher.order] if in_order else heads[name])
            else:
                fresh.append(name)
    return LoadedTask(student.train(), fresh)


def _is_last(task: TaskEncoder, name: str) -> bool:
    """True if a weight belongs to the head's last map, whose rows are the labels."""
    return name.rpartition(".")[0] == task.head_names[-1].rpartition(".")[0]


def _as_mlm(teacher: TaskEncoder, seed: int) -> Encoder:
    """The teacher's encoder under a masked-language-model head with fresh weights: what kd.student makes students from."""
    with torch.random.fork_rng(devices=[]), quiet_transformers():
        torch.manual_seed(seed)
        model = AutoModelForMaskedLM.from_config(
            teacher.hf.config, dtype=torch.float32, attn_implementation=teacher.hf.config._attn_implementation
        )
    weights = teacher.hf.state_dict()
    with torch.no_grad():
        for name, weight in model.state_dict().items():
            if not is_head(name, teacher.family.base):
                weight.copy_(weights[name])
    return Encoder(model)
