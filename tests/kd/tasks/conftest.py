"""Tiny task models of every family, and a batch of padded rows for them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from kd.batch import IGNORED
from kd.models.config import quiet_transformers
from kd.tasks.batch import TaskBatch, TaskKind
from kd.tasks.model import MODEL_CLASSES, set_labels
from tests.kd.conftest import MODELS, VOCABULARY, visible

LABELS = ["down", "flat", "up"]
KINDS: tuple[TaskKind, ...] = ("classification", "multi_label", "regression", "tagging", "question_answering")
CASES = [
    (family, kind)
    for number, family in enumerate(MODELS)
    for kind in (KINDS if family in ("bert", "distilbert") else ("classification", ("tagging", "question_answering")[number % 2]))
]
"""Two families with every kind; of the others the classes of transformers that differ: whole texts, and positions."""


def task_model(family: str, kind: TaskKind, labels: list[str] | None = None, seed: int = 1, **overrides: object) -> PreTrainedModel:
    """A tiny model with a head, all weights visible."""
    config = MODELS[family](seed, **overrides).config
    set_labels(config, kind, [] if kind in ("regression", "question_answering") else labels or LABELS)
    with quiet_transformers():
        return visible(MODEL_CLASSES[kind].from_config(config), seed)


def task_batch(kind: TaskKind, lengths: tuple[int, ...] = (9, 5, 7), width: int = 12, seed: int = 3, pad: int = 0) -> TaskBatch:
    """Rows of these lengths, padded. The last row has no label."""
    generator = torch.Generator().manual_seed(seed)
    rows = len(lengths)
    segments = (torch.arange(width)[None] < torch.tensor(lengths)[:, None]).long()
    ids = torch.where(segments > 0, torch.randint(5, VOCABULARY, (rows, width), generator=generator), pad)
    positions = torch.arange(width).expand(rows, width)
    types = ((positions > 3) & (segments > 0)).long()
    labels = torch.full((rows, width), IGNORED)
    labels[:-1, 0] = 0
    words = None
    targets: torch.Tensor
    if kind == "classification":
        targets = torch.tensor([2, 0, IGNORED][:rows])
    elif kind == "multi_label":
        targets = torch.tensor([[1, 0, 1], [0, 0, 1], [IGNORED] * 3][:rows])
    elif kind == "regression":
        targets = torch.tensor([0.5, -1.0, float("nan")][:rows])
    elif kind == "tagging":
        words = (positions % 2 == 1) & (positions < segments.sum(1, keepdim=True) - 1)
        targets = torch.where(words, positions % 3, IGNORED)
        targets[-1] = IGNORED
        labels = targets
    else:
        targets = torch.tensor([[2, 4], [0, 0], [IGNORED, IGNORED]][:rows])
    return TaskBatch(
        input_ids=ids,
        labels=labels,
        positions=positions,
        segments=segments,
        windows=torch.arange(rows),
        token_types=types,
        targets=targets,
        kind=kind,
        words=words,
    )


@pytest.fixture
def saved_task(tmp_path: Path) -> Callable[..., Path]:
    """saved_task(family, kind, labels): the folder of a tiny task model."""

    def save(family: str, kind: TaskKind, labels: list[str] | None = None, name: str = "model", **overrides: object) -> Path:
        folder = tmp_path / name
        task_model(family, kind, labels, **overrides).save_pretrained(folder)
        return folder

    return save
