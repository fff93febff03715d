"""The tensors of one micro-batch, and nothing about where they came from."""

from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

IGNORED = -100  # the label of a position that is not predicted


@dataclass(frozen=True)
class Batch:
    """B rows of S positions.

    input_ids: [B, S] int64.
    labels: [B, S] int64; IGNORED where nothing is predicted.
    positions: [B, S] int64; they restart with each document.
    segments: [B, S] int64; 0 is padding, 1.. numbers the documents of a row. Two positions may attend to each other iff they are equal.
    update: the number of the update in the run. A key of dropout.
    first_slot: the slot of the first row in the update's global batch. A key of dropout.
    windows: [B] int64, the stream's window ids, which name rows in logs.
    token_types: [B, S] int64, 1 in the second text of a pair; None: all are 0.
    """

    input_ids: Tensor
    labels: Tensor
    positions: Tensor
    segments: Tensor
    windows: Tensor
    update: int = 0
    first_slot: int = 0
    token_types: Tensor | None = None

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            name: value.to(device, non_blocking=True) for name, value in vars(self).items() if isinstance(value, Tensor)
        }
        return replace(self, **moved)

    @property
    def attention(self) -> Tensor:
        """[B, 1, S, S] bool: True where one position may attend to another."""
        return self.segments[:, None, :, None] == self.segments[:, None, None, :]

    @property
    def predicted(self) -> Tensor:
        """[B, S] bool: positions with a label."""
        return self.labels != IGNORED

    @property
    def real(self) -> Tensor:
        """[B, S] bool: positions that are not padding."""
        return self.segments > 0
