"""The tensors of one micro-batch of a task: the rows of a Batch, and their targets."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
from torch import Tensor

from kd.batch import Batch

TaskKind = Literal["classification", "multi_label", "regression", "tagging", "question_answering"]


@dataclass(frozen=True)
class TaskBatch(Batch):
    """B rows of S positions, one example (or one window of an example) a row.

    targets: what the head should return; IGNORED, or NaN for real numbers, where there is no label.
      classification: [B] int64.
      multi_label: [B, C] int64 (0 or 1).
      regression: [B] fp32.
      tagging: [B, S] int64.
      question_answering: [B, 2] int64, the first and the last position of the answer.
    words: [B, S] bool, the first position of each word (tagging); None elsewhere.
    labels: [B, S]; not IGNORED at a position that stands for a label.
    windows: the numbers of the examples.
    readings: the same rows for teachers with another tokenizer, by the teacher's number.
    """

    targets: Tensor = field(default_factory=lambda: torch.zeros(0))
    kind: TaskKind = "classification"
    words: Tensor | None = None
    readings: Mapping[int, "TaskBatch"] = field(default_factory=dict)

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        readings = {number: reading.to(device) for number, reading in self.readings.items()}
        return replace(super().to(device), readings=readings)
