"""Dropout on CPUs whose masks are a function of (seed, update, slot of the row, place in the model), and of nothing else.

So ranks, micro-batches, restarts and recomputed activations do not change a mask. The numbers are those of Philox4x64-10 (Salmon et al.
2011, "Parallel random numbers: as easy as 1, 2, 3"), which has no state: its key is (seed, place) and its counter (block, slot, update,
part). One 64-bit number decides about four elements. On CPUs that takes a quarter of the time of torch's dropout.

A key is set before each micro-batch, as torch's own generator is. Without one, and on other devices, dropout is torch's.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Philox
from numpy.typing import NDArray
from torch import Tensor, nn

LEVELS = 1 << 16
"""A rate is exact to 1 / LEVELS, and the scale belongs to the rounded rate."""


@dataclass(frozen=True)
class Key:
    """The key of a micro-batch's masks. slots: of its rows in the update's global batch."""

    seed: int
    update: int
    slots: tuple[int, ...]


_KEYS: list[Key] = []


def set_key(key: Key | None) -> None:
    """Use this key in this process until the next call; None: torch's dropout."""
    _KEYS[:] = [] if key is None else [key]


def key_for(rows: int) -> Key | None:
    """The key that is set, if it belongs to a batch of so many rows."""
    return next((key for key in _KEYS if len(key.slots) == rows), None)


def dropped_levels(rate: float) -> int:
    """The number of LEVELS equal chances that drop an element."""
    return min(round(rate * LEVELS), LEVELS - 1)


def scale_of(rate: float) -> float:
    """The factor of elements that are kept."""
    return LEVELS / (LEVELS - dropped_levels(rate))


def draw(into: Tensor, rate: float, key: Key, place: int, row: int, part: int = 0) -> None:
    """Write the mask of one row: 1 where an element is kept. into: int8, contiguous, on the CPU. part: tells masks of a place apart."""
    numbers = Philox(key=(key.seed, place), counter=(0, key.slots[row], key.update, part)).random_raw(-(-into.numel() // 4))
    kept: NDArray[np.bool_] = into.numpy().reshape(-1).view(np.bool_)
    np.greater_equal(numbers.view(np.int16)[: into.numel()], dropped_levels(rate) - LEVELS // 2, out=kept)


class Dropout(nn.Dropout):
    """nn.Dropout with these masks. place: its number in the model. The input is [B, ...], a row of the batch each."""

    def __init__(self, rate: float, place: int) -> None:
        super().__init__(rate)
        self.place = place

    def forward(self, states: Tensor) -> Tensor:
        """The same shape and dtype."""
        if not self.training or states.device.type != "cpu" or dropped_levels(self.p) == 0:
            return super().forward(states)
        return self._by_key(states)

    @torch.compiler.disable  # numpy draws the masks
    def _by_key(self, states: Tensor) -> Tensor:
        key = key_for(len(states))
        if key is None:
            return super().forward(states)
        kept = torch.empty(states.shape, dtype=torch.int8)
        for row in range(len(states)):
            draw(kept[row], self.p, key, self.place, row)
        output: Tensor = _Drop.apply(states, kept, scale_of(self.p))
        return output


class _Drop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, kept: Tensor, scale: float) -> Tensor:
        ctx.save_for_backward(kept)
        ctx.scale = scale
        return (states * kept).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (kept,) = ctx.saved_tensors
        return (gradients[0] * kept).mul_(ctx.scale), None, None


def replace_dropout(model: nn.Module) -> None:
    """Use these masks in every nn.Dropout of a model. Places are numbered in the order of its modules. Idempotent."""
    plain = [(name, module) for name, module in model.named_modules() if type(module) is nn.Dropout]
    for place, (name, module) in enumerate(plain):
        owner, _, attribute = name.rpartition(".")
        ours = Dropout(module.p, place)
        ours.train(module.training)
        setattr(model.get_submodule(owner), attribute, ours)


def of_rate(modules: Iterable[nn.Module], rate: float) -> Dropout | None:
    """The first of some modules that is a Dropout of this rate."""
    return next((module for module in modules if isinstance(module, Dropout) and module.p == rate), None)
