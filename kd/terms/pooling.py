"""Documents inside packed rows: the "examples" of losses that compare examples with each other.

A document is what carries one segment number in one row (a piece of a longer text, where a row's edge cut it). Documents are numbered
0 .. M-1, row by row and by segment number within a row. Their numbers come from the host: a GPU would wait to tell them.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from kd.copies import Indices, positions_of
from kd.terms.base import Pooling


@dataclass(frozen=True)
class Documents:
    """The documents of a batch.

    most: the largest number of documents of a row.
    cells: [M] rows, and numbers 0 .. most - 1 within the row.
    first: [M] rows, and columns of the first positions.
    """

    most: int
    cells: Indices
    first: Indices


def documents_of(segments: Tensor, device: torch.device) -> Documents:
    """The documents of segments [B, S] on the host, with indices on a device."""
    most = int(segments.max())
    present = _members(segments, most).any(-1)
    return Documents(most, positions_of(present, device), positions_of(first_tokens(segments), device))


def first_tokens(segments: Tensor) -> Tensor:
    """[B, S] bool: where a document begins. segments [B, S] int64; 0 is padding, documents of a row are numbered 1, 2, …"""
    before = torch.nn.functional.pad(segments[:, :-1], (1, 0))
    return (segments > 0) & (segments != before)


def pooled(states: Tensor, segments: Tensor, documents: Documents, pooling: Pooling) -> Tensor:
    """[B, S, D] -> [M, D] fp32: of each document the mean over its positions, or its first position's state."""
    if pooling == "first":
        return states[documents.first].float()
    members = _members(segments, documents.most)
    lengths = members.sum(-1)
    means = members.float() @ states.float() / lengths.clamp(min=1)[..., None]  # a product and no scatter: the same sum every time
    return means[documents.cells]


def groups(segments: Tensor, rows: int | None) -> Tensor:
    """[M] int64: each document's group, its row's number // rows; None: all rows are one group. segments: on the host."""
    present = _members(segments, int(segments.max())).any(-1)
    owner = torch.arange(len(segments)).repeat_interleave(present.sum(-1))
    return torch.zeros_like(owner) if rows is None else owner // rows


def members_of(group: Tensor) -> list[Tensor]:
    """The numbers [n] of the documents of each group, by ascending group. group [M]: on the host."""
    return [(group == number).nonzero()[:, 0] for number in group.unique()]


def with_partners(group: Tensor, partners: int) -> Tensor:
    """[M] bool: documents whose group holds at least so many others. group [M] int64, on the host."""
    return torch.bincount(group)[group] > partners if len(group) else group.bool()


def _members(segments: Tensor, most: int) -> Tensor:
    """[B, K, S] bool: which positions are of a row's k-th document."""
    numbers = torch.arange(1, most + 1, device=segments.device)
    return segments[:, None, :] == numbers[None, :, None]
