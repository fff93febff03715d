"""Documents inside packed rows: the "examples" of losses that compare examples with each other.

A document is what carries one segment number in one row (a piece of a longer text, where a row's edge cut it). Documents are numbered
0 .. M-1, row by row and by segment number within a row.
"""

import torch
from torch import Tensor

from kd.terms.base import Pooling


def first_tokens(segments: Tensor) -> Tensor:
    """[B, S] bool: where a document begins. segments [B, S] int64; 0 is padding, documents of a row are numbered 1, 2, …"""
    before = torch.nn.functional.pad(segments[:, :-1], (1, 0))
    return (segments > 0) & (segments != before)


def pooled(states: Tensor, segments: Tensor, pooling: Pooling) -> Tensor:
    """[B, S, D] -> [M, D] fp32: of each document the mean over its positions, or its first position's state."""
    if pooling == "first":
        return states[first_tokens(segments)].float()
    members = _members(segments)
    lengths = members.sum(-1)
    means = members.float() @ states.float() / lengths.clamp(min=1)[..., None]  # a product and no scatter: the same sum every time
    return means[lengths > 0]


def groups(segments: Tensor, rows: int | None) -> Tensor:
    """[M] int64: each document's group, its row's number // rows; None: all rows are one group."""
    numbers = torch.arange(len(segments), device=segments.device)
    owner = numbers.repeat_interleave((_members(segments).sum(-1) > 0).sum(-1))
    return torch.zeros_like(owner) if rows is None else owner // rows


def with_partners(group: Tensor, partners: int) -> Tensor:
    """[M] bool: documents whose group holds at least so many others. group [M] int64."""
    return torch.bincount(group)[group] > partners if len(group) else group.bool()


def _members(segments: Tensor) -> Tensor:
    """[B, K, S] bool: which positions are of a row's k-th document."""
    numbers = torch.arange(1, int(segments.max()) + 1, device=segments.device)
    return segments[:, None, :] == numbers[None, :, None]
