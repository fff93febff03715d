"""Attention within each document of a packed row, without a [B, 1, S, S] mask: the value `documents` of train.attention.

Documents of like length are gathered into groups, padded to a multiple of STEP. A group's maps are [n, heads, L, L], so nothing is
computed between documents, or for padding, whose outputs are 0. It is registered with transformers under its name: a model gets it like any
other attention implementation, and the mask that passes through the model is the segment numbers [B, 1, 1, S].
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from kd.kernels import flash, fp32_products
from kd.kernels.dropout import Dropout, draw, dropped_levels, key_for, of_rate, scale_of
from kd.models.attention.document_layout import STEP, Group, Layout, layout_of

DOCUMENTS = "documents"
LONG = 256
"""Groups above it take torch's fused attention in fp32 without dropout, where MKL multiplies fp32 matrices."""


def attend(
    query: Tensor, key: Tensor, value: Tensor, segments: Tensor, scaling: float, dropout: float = 0.0, place: int | None = None
) -> Tensor:
    """query, key, value [B, heads, S, d], segments [B, S] -> [B, S, heads, d]; 0 at padding.

    place: of kd.kernels.dropout, whose masks are used if its key is set; None: masks of torch's generator.
    """
    layout = layout_of(segments)
    if dropout == 0 and flash.takes(query):
        return _by_flash(query, key, value, layout, scaling)
    fused = dropout == 0 and query.dtype == torch.float32 and not fp32_products.chosen()
    if fused and not (torch.is_grad_enabled() and (query.requires_grad or key.requires_grad or value.requires_grad)):
        return _each_fused(query, key, value, layout, scaling)
    if fused and any(group.length > LONG for group in layout.groups):
        return _groups_fused(query, key, value, layout, scaling)
    output: Tensor = _Attend.apply(query, key, value, layout, scaling, dropout if dropped_levels(dropout) else 0.0, place)
    return output


def _by_flash(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float) -> Tensor:
    """Flash attention on a GPU: all documents in one call, without padding."""
    rows, heads, positions, size = query.shape
    q, k, v = (_flat(states).index_select(0, layout.order) for states in (query, key, value))
    longest = max((end - begin for _, begin, end in layout.documents), default=0)
    result = flash.attend(q, k, v, layout.starts, longest, scaling)
    return query.new_zeros(rows * positions, heads, size).index_copy(0, layout.order, result).view(rows, positions, heads, size)


def _each_fused(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float) -> Tensor:
    """torch's fused attention, one document after the other; without gradients."""
    rows, heads, positions, size = query.shape
    output = query.new_zeros(rows, positions, heads, size)
    for row, begin, end in layout.documents:
        q, k, v = (states[row : row + 1, :, begin:end] for states in (query, key, value))
        output[row, begin:end] = F.scaled_dot_product_attention(q, k, v, scale=scaling)[0].transpose(0, 1)
    return output


def _groups_fused(query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float) -> Tensor:
    """torch's fused attention, group by group."""
    rows, heads, positions, size = query.shape
    flat = [_flat(states) for states in (query, key, value)]
    output = query.new_zeros(rows * positions, heads, size)
    for group in layout.groups:
        q, k, v = (states[group.gather].unflatten(0, (-1, group.length)).transpose(1, 2) for states in flat)
        bias = None if group.bias is None else group.bias[:, None].to(q.dtype).expand(-1, -1, group.length, -1)
        result = F.scaled_dot_product_attention(q, k, v, bias, scale=scaling).transpose(1, 2).flatten(0, 1)
        output = output.index_copy(0, group.scatter, result if group.kept is None else result[group.kept])
    return output.view(rows, positions, heads, size)


class _Attend(torch.autograd.Function):
    """softmax(Q K^T) V of each group, its probabilities kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, scaling: float, dropout: float, place: int | None
    ) -> Tensor:
        rows, heads, positions, size = query.shape
        flat = [_flat(states) for states in (query, key, value)]
        output = query.new_zeros(rows * positions, heads, size)
        kept: list[Tensor] = []
        for group in layout.groups:
            q, k, v = (_gathered(states, group, heads) for states in flat)
            scores = torch.bmm(q, k.mT).mul_(scaling)
            if group.bias is not None:
                scores.unflatten(0, (-1, heads)).add_(group.bias[:, None].to(scores.dtype))  # else torch adds in fp32, in a copy
            used = maps = torch.softmax(scores, -1)
            if dropout > 0:
                mask = _mask(group, (rows, heads, positions), dropout, place, maps.device)
                used = maps * mask
                kept.append(mask)
                v = v * scale_of(dropout)
            _scatter(output, torch.bmm(used, v), group, heads)
            kept += [q, k, v, maps]
        ctx.save_for_backward(*kept)
        ctx.layout, ctx.scaling, ctx.dropout, ctx.heads = layout, scaling, dropout, heads
        return output.view(rows, positions, heads, size)

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        rows, positions, heads, size = outputs[0].shape
        incoming = outputs[0].reshape(rows * positions, heads, size)
        gradients = [incoming.new_zeros(incoming.shape) for _ in range(3)]
        kept: Iterator[Tensor] = iter(ctx.saved_tensors)
        for group in ctx.layout.groups:
            mask = next(kept) if ctx.dropout > 0 else None
            q, k, v, maps = (next(kept) for _ in range(4))
            own = _gathered(incoming, group, heads)
            if group.bias is not None:  # what is gathered after a document's end is no output
                own.unflatten(0, (-1, heads)).masked_fill_((group.bias < 0).mT[:, None], 0.0)
            of_maps = torch.bmm(own, v.mT)
            if mask is not None:  # v was kept with the scale of dropout
                of_maps.mul_(mask)
                own.mul_(scale_of(ctx.dropout))
            of_scores = torch._softmax_backward_data(of_maps, maps, -1, maps.dtype).mul_(ctx.scaling)
            used = maps if mask is None else maps * mask
            results = torch.bmm(of_scores, k), torch.bmm(of_scores.mT, q), torch.bmm(used.mT, own)
            for gradient, result in zip(gradients, results, strict=True):
                _scatter(gradient, result, group, heads)
        return *(gradient.view(rows, positions, heads, size).transpose(1, 2) for gradient in gradients), None, None, None, None


def _mask(group: Group, shape: tuple[int, int, int], rate: float, place: int | None, device: torch.device) -> Tensor:
    """[n x heads, length, length] int8: 1 where a number of a map is kept. shape: rows, heads, positions of the batch.

    A document's mask depends on its slot, its first position, and its length up to a multiple of STEP.
    """
    rows, heads, positions = shape
    length = group.length
    key = key_for(rows) if place is not None and device.type == "cpu" else None
    if key is None or place is None:
        return dropout_mask((len(group.gather) // length * heads, length, length), rate, device)
    full = -(-length // STEP) * STEP  # above `length` where S is no multiple of STEP
    begins = group.gather[::length].numpy().tolist()
    mask = torch.empty(len(begins), heads, full, full, dtype=torch.int8)
    for number, begin in enumerate(begins):
        draw(mask[number], rate, key, place, begin // positions, begin % positions)
    return mask[:, :, :length, :length].reshape(-1, length, length)


def dropout_mask(shape: tuple[int, ...], rate: float, device: torch.device) -> Tensor:
    """int8: 0 with probability `rate`, and otherwise 1, by torch's generator. Four numbers share a 64-bit draw."""
    count = math.prod(shape)
    numbers = torch.empty(-(-count // 4), dtype=torch.int64, device=device).random_(-(2**63), None)
    return (numbers.view(torch.int16)[:count] >= dropped_levels(rate) - 2**15).view(torch.int8).view(shape)


def _flat(states: Tensor) -> Tensor:
    """[B, heads, S, d] -> [B x S, heads, d]."""
    return states.transpose(1, 2).flatten(0, 1)


def _gathered(flat: Tensor, group: Group, heads: int) -> Tensor:
    """[B x S, heads, d] -> [n x heads, length, d], contiguous."""
    return flat.index_select(0, group.gather).view(-1, group.length, heads, flat.shape[-1]).transpose(1, 2).flatten(0, 1)


def _scatter(into: Tensor, result: Tensor, group: Group, heads: int) -> None:
    """Write a group's [n x heads, length, d] into [B x S, heads, d]."""
    flat = result.unflatten(0, (-1, heads)).transpose(1, 2).flatten(0, 1)
    into.index_copy_(0, group.scatter, flat if group.kept is None else flat.index_select(0, group.kept))


@torch.compiler.disable  # the host makes the groups
def _for_transformers(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor,
    scaling: float | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    drop: Dropout | None = of_rate(module.children(), dropout)
    return attend(query, key, value, attention_mask[:, 0, 0], scaling, dropout, None if drop is None else drop.place), None


def _mask_of_rows(batch_size: int, q_length: int, attention_mask: Tensor | None = None, device: Any = None, **_: Any) -> Tensor:
    """[B, 1, 1, S]: one document a row, from a mask of padding [B, S] or none."""
    if attention_mask is None:
        return torch.ones((batch_size, 1, 1, q_length), dtype=torch.int64, device=device)
    return attention_mask[:, None, None].long()


AttentionInterface.register(DOCUMENTS, _for_transformers)
AttentionMaskInterface.register(DOCUMENTS, _mask_of_rows)
