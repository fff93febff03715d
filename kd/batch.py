"""The tensors of one micro-batch, and nothing about where they came from."""

from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from kd.copies import moved

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
    host: for a batch that was moved to a device, the batch on the CPU that it is a copy of.
    """

    input_ids: Tensor
    labels: Tensor
    positions: Tensor
    segments: Tensor
    windows: Tensor
    update: int = 0
    first_slot: int = 0
    token_types: Tensor | None = None
    host: Self | None = field(default=None, init=False, repr=False, compare=False)

    def to(self, device: torch.device) -> Self:
        """The same batch on another device."""
        there: dict[str, Any] = {name: moved(value, device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        batch = replace(self, **there)
        if device.type != "cpu":
            object.__setattr__(batch, "host", self.on_host)
        return batch

    def pinned(self) -> Self:
        """The same batch in pinned memory, from which a GPU copies without the host."""
        pinned: dict[str, Any] = {name: value.pin_memory() for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **pinned)

    @property
    def device(self) -> torch.device:
        """The device of its tensors."""
        return self.input_ids.device

    @property
    def on_host(self) -> Self:
        """The same batch on the CPU. Its values are read without a question to a GPU, if the batch came from there."""
        if self.device.type == "cpu":
            return self
        return self.to(torch.device("cpu")) if self.host is None else self.host

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
