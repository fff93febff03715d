"""The tensors of one micro-batch of a task: the rows of a Batch, and their targets."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal, Self

import torch
from torch import Tensor

from kd.batch import Batch
from kd.copies import Indices, positions_of

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
        batch = replace(super().to(device), readings=readings)
        if device.type != "cpu":
            object.__setattr__(batch, "host", self.on_host)
        return batch

    def pinned(self) -> Self:
        """The same batch in pinned memory, its readings too."""
        return replace(super().pinned(), readings={number: reading.pinned() for number, reading in self.readings.items()})

    @cached_property
    def word_positions(self) -> Indices:
        """The rows and columns of the words, on the batch's device."""
        words = self.on_host.words
        assert words is not None
        return positions_of(words, self.device)
