"""The documents of a batch of packed rows, and groups of like length.

A layout is computed on the host. For a batch on another device, `remember` gives it the segments on the host first.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from kd.copies import moved

STEP = 16
"""Lengths of groups are multiples of it."""


class Group(NamedTuple):
    """n documents of at most `length` positions. Positions are indices into B x S.

    gather: [n x length] int64; after a document's end, its first position again.
    bias: [n, 1, length] fp32, -inf after a document's end; None: all documents are full.
    kept: [m] int64, the entries of `gather` that are positions of documents; None: all.
    scatter: [m] int64, those positions.
    """

    length: int
    gather: Tensor
    bias: Tensor | None
    kept: Tensor | None
    scatter: Tensor


class Layout(NamedTuple):
    """The documents of a batch: (row, first position, end) of each, and their groups.

    order: [T] int64, the positions of all documents, one document after the other. starts: [N + 1] int32, their first entries in `order`.
    """

    documents: tuple[tuple[int, int, int], ...]
    groups: tuple[Group, ...]
    order: Tensor
    starts: Tensor


def layout_of(segments: Tensor) -> Layout:
    """The layout of segments [B, S]: neighbours with equal numbers are one document, and 0 is padding. Kept for the last few batches.

    Its tensors are on the device of the segments.
    """
    if segments.device.type != "cpu":
        return _layout_elsewhere(segments)
    numbers = segments.contiguous().numpy()
    return _layout(numbers.tobytes(), numbers.dtype.str, tuple(numbers.shape))


@dataclass
class _Remembered:
    """Segments on the host, and their layout on a device once it was asked for."""

    storage: StorageWeakRef
    segments: Tensor
    layout: Layout | None = None


_REMEMBERED: dict[tuple[int, torch.Size], _Remembered] = {}
"""By the storage of the segments on the device, and their shape. A storage that is freed is dropped at the next `remember`."""


def remember(segments: Tensor, host: Tensor) -> None:
    """Segments [B, S] on a device have these values, which are on the host. So their layout needs no question to the device."""
    for key in [key for key, one in _REMEMBERED.items() if one.storage.expired()]:
        del _REMEMBERED[key]
    storage = StorageWeakRef(segments.untyped_storage())
    _REMEMBERED[storage.cdata, segments.shape] = _Remembered(storage, host)


def _layout_elsewhere(segments: Tensor) -> Layout:
    """The layout of segments that are not on the CPU."""
    known = _REMEMBERED.get((StorageWeakRef(segments.untyped_storage()).cdata, segments.shape))
    if known is None:
        return _on(layout_of(segments.cpu()), segments.device)
    if known.layout is None:
        known.layout = _on(layout_of(known.segments), segments.device)
    return known.layout


def _on(layout: Layout, device: torch.device) -> Layout:
    """The same layout with its tensors on a device."""

    def there(group: Group) -> Group:
        bias, kept = (None if one is None else moved(one, device) for one in (group.bias, group.kept))
        return Group(group.length, moved(group.gather, device), bias, kept, moved(group.scatter, device))

    groups = tuple(there(group) for group in layout.groups)
    return Layout(layout.documents, groups, moved(layout.order, device), moved(layout.starts, device))


@lru_cache(maxsize=8)  # each layer asks, forward and again with activation checkpointing
def _layout(content: bytes, dtype: str, shape: tuple[int, int]) -> Layout:
    rows, positions = shape
    numbers = np.frombuffer(content, dtype).reshape(shape)
    documents = []
    for row in range(rows):
        edges = [0, *(np.flatnonzero(np.diff(numbers[row])) + 1).tolist(), positions]
        documents += [(row, begin, end) for begin, end in pairwise(edges) if numbers[row, begin] > 0]
    lengths: dict[int, list[tuple[int, int]]] = {}
    for row, begin, end in documents:
        length = min(positions, -(-(end - begin) // STEP) * STEP)
        lengths.setdefault(length, []).append((row * positions + begin, end - begin))
    starts = np.cumsum([0, *(end - begin for _, begin, end in documents)], dtype=np.int32)
    order = torch.from_numpy(np.flatnonzero(numbers))
    return Layout(tuple(documents), tuple(_group(length, lengths[length]) for length in sorted(lengths)), order, torch.from_numpy(starts))


def _group(length: int, documents: list[tuple[int, int]]) -> Group:
    """documents: (first position in B x S, length) of each."""
    begins, sizes = torch.tensor(documents).T[:, :, None]
    steps = torch.arange(length)
    inside = steps < sizes
    gather = torch.where(inside, begins + steps, begins).flatten()
    if bool(inside.all()):
        return Group(length, gather, None, None, gather)
    kept = inside.flatten().nonzero()[:, 0]
    return Group(length, gather, torch.where(inside, 0.0, float("-inf"))[:, None], kept, gather[kept])
