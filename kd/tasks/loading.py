"""Task models from folders and hub names: with the head that they hold, or with a fresh one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedConfig

from kd.errors import KdError
from kd.models.config import quiet_transformers, read_config
from kd.models.encoder import kernel_for
from kd.models.families import family_of
from kd.models.loading import incomplete, load
from kd.tasks.batch import TaskKind
from kd.tasks.model import MODEL_CLASSES, TaskEncoder, is_head, set_labels

LabelOrder = Callable[[str, list[str]], list[int]]
"""(where, the labels of a model) -> the model's own number of each of the task's labels. Raises for labels that do not match."""


@dataclass(frozen=True)
class LoadedTask:
    """A task model, and the weights of its head that no file gave."""

    encoder: TaskEncoder
    fresh: list[str]


def load_task(path: str, kind: TaskKind, order: LabelOrder, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> TaskEncoder:
    """A model of this task with the head that its folder holds, on the CPU, in eval mode. Its logits come in the task's order of labels.

    Raises KdError for a folder without such a head, and for weights that are not those of config.json.
    """
    config = read_config(path)
    encoder, missing = load(path, config, dtype, attention, MODEL_CLASSES[kind])
    base = encoder.family.base
    if head := [name for name in missing if is_head(name, base)]:
        expected = f"expected a model fine-tuned for {kind.replace('_', ' ')}, got one without {head[0]}"
        raise KdError(f"{path}: {expected}; fine-tune it first: stillhouse task train")
    if missing:
        raise KdError(incomplete(path, missing))
    names = labels_of_model(config, kind)
    return TaskEncoder(encoder.hf, kind, None if names is None else order(path, names)).eval()


def load_with_head(
    path: str, kind: TaskKind, labels: Sequence[str], seed: int, dtype: torch.dtype = torch.float32, attention: str = "sdpa"
) -> LoadedTask:
    """A model to train on this task, in train mode. It keeps the head of its folder if that has the same labels in the same order.

    A fresh head is drawn by seed. Raises KdError where weights of the encoder itself are lacking.
    """
    config = read_config(path)
    same = labels_of_model(config, kind) == (list(labels) or None)
    set_labels(config, kind, labels)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, missing = load(path, config, dtype, attention, MODEL_CLASSES[kind])
        body = [name for name in missing if not is_head(name, encoder.family.base)]
        if body:
            raise KdError(incomplete(path, body))
        task = TaskEncoder(encoder.hf, kind)
        fresh = missing
        if not same and kind != "question_answering" and not missing:  # a head for other labels
            fresh = task.head_names
            _draw(task, fresh)
    return LoadedTask(task.train(), fresh)


def untrained_task(config: PreTrainedConfig, kind: TaskKind, attention: str = "sdpa") -> TaskEncoder:
    """A model of this configuration with fresh weights, fp32."""
    with quiet_transformers():
        kernel = kernel_for(family_of(config), attention)
        return TaskEncoder(MODEL_CLASSES[kind].from_config(config, dtype=torch.float32, attn_implementation=kernel), kind)


def labels_of_model(config: PreTrainedConfig, kind: TaskKind) -> list[str] | None:
    """The names of a model's labels; None where the kind of task has none."""
    if kind in ("question_answering", "regression"):
        return None
    return [str(config.id2label[number]) for number in range(config.num_labels)]


def _draw(task: TaskEncoder, names: Sequence[str]) -> None:
    """Give the head fresh weights, as transformers draws them."""
    with torch.no_grad():
        for name in names:
            module = task.hf.get_submodule(name.rpartition(".")[0])
            if isinstance(module, nn.Linear | nn.LayerNorm):
                task.hf._init_weights(module)
