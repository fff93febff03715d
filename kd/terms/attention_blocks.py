"""Attention scores and relations between positions, recomputed block by block: never all [B, heads, S, S] at once.

Scores of a head are left right^T / sqrt(d), with left and right two of queries, keys and values. They come from what the projections gave,
so the model itself keeps its fused kernels. One autograd function computes the B x heads maps in blocks. The forward pass keeps one number
a position. The backward pass computes each block again, with its gradient, and drops it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

BLOCK_BYTES = {"cpu": 2 << 20}  # of one fp32 map tensor of a block; on CPUs it should stay in the caches
OTHER_BLOCK_BYTES = 64 << 20
LOWEST = torch.finfo(torch.float32).min

AttentionLoss = Callable[[Tensor, Sequence[Tensor], Tensor], Tensor]
"""(student scores [n, S, S] fp32, each teacher layer's, allowed [n, S, S] bool) -> [n, S] fp32, one number a query position."""


class Relation(NamedTuple):
    """Two states [B, S, D] of one layer, whose positions are compared head by head."""

    left: Tensor
    right: Tensor


def compare(student: Relation, teachers: Sequence[Relation], heads: int, segments: Tensor, loss: AttentionLoss) -> Tensor:
    """[B, S] fp32: the mean over heads of a loss of the scores of student and teacher.

    Both are cut into `heads` heads (each of its own size). A position is compared with those of its own segment only.
    Memory: about five blocks of at least one [S, S] fp32, for any B and heads, in the forward and in the backward pass.
    """
    split = [_heads(tensor, heads) for relation in (student, *teachers) for tensor in relation]
    values: Tensor = _Blockwise.apply(segments, heads, loss, *split)
    return values.unflatten(0, (len(segments), heads)).mean(1)


def distributions_kl(student: Tensor, teachers: Sequence[Tensor], allowed: Tensor) -> Tensor:
    """KL(teacher || student) of the softmax over allowed positions, nats; several teacher layers: of their mean distribution."""
    own = _log_softmax(student, allowed)
    target = _mean_log_softmax(teachers, allowed)
    return torch.nn.functional.kl_div(own, target, reduction="none", log_target=True).sum(-1)


def distributions_mse(student: Tensor, teachers: Sequence[Tensor], allowed: Tensor) -> Tensor:
    """Mean over allowed positions of the squared difference of the softmaxes."""
    difference = _log_softmax(student, allowed).exp() - _mean_log_softmax(teachers, allowed).exp()
    return _mean(difference.square(), allowed)


def scores_mse(student: Tensor, teachers: Sequence[Tensor], allowed: Tensor) -> Tensor:
    """Mean over allowed positions of the squared difference of the scores themselves; several teacher layers: of their mean."""
    return _mean((student - torch.stack(list(teachers)).mean(0)).square(), allowed)


def _log_softmax(scores: Tensor, allowed: Tensor) -> Tensor:
    return scores.masked_fill(~allowed, LOWEST).log_softmax(-1)


def _mean_log_softmax(scores: Sequence[Tensor], allowed: Tensor) -> Tensor:
    if len(scores) == 1:
        return _log_softmax(scores[0], allowed)
    mean = torch.stack([_log_softmax(layer, allowed).exp() for layer in scores]).mean(0)
    return mean.clamp(min=torch.finfo(torch.float32).tiny).log().masked_fill(~allowed, LOWEST)


def _mean(values: Tensor, allowed: Tensor) -> Tensor:
    return values.masked_fill(~allowed, 0.0).sum(-1) / allowed.sum(-1)


def _heads(states: Tensor, heads: int) -> Tensor:
    """[B, S, heads x d] -> [B x heads, S, d]."""
    return states.unflatten(-1, (heads, -1)).transpose(1, 2).flatten(0, 1)


def _block(segments: Tensor) -> int:
    """Number of maps [S, S] in one block."""
    positions = segments.shape[1]
    return max(1, BLOCK_BYTES.get(segments.device.type, OTHER_BLOCK_BYTES) // (4 * positions * positions))


def _values(split: Sequence[Tensor], allowed: Tensor, loss: AttentionLoss) -> Tensor:
    """One block: states [n, S, d] (left, right of the student, then of each teacher layer) -> [n, S]."""
    scores = [(left.float() * left.shape[-1] ** -0.5) @ right.float().mT for left, right in zip(split[::2], split[1::2], strict=True)]
    return loss(scores[0], scores[1:], allowed)


class _Blockwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, segments: Tensor, heads: int, loss: AttentionLoss, *split: Tensor) -> Tensor:
        ctx.save_for_backward(segments, *split)
        ctx.heads, ctx.loss = heads, loss
        values = torch.empty(split[0].shape[:2], dtype=torch.float32, device=segments.device)
        for maps, allowed in _blocks(segments, heads):
            values[maps] = _values([states[maps] for states in split], allowed, loss)
        return values

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        segments, *split = ctx.saved_tensors
        wants = [i for i, wanted in enumerate(ctx.needs_input_grad[3:]) if wanted]
        gradients = {i: torch.empty_like(split[i]) for i in wants}
        for maps, allowed in _blocks(segments, ctx.heads):
            block = [states[maps].detach().requires_grad_(i in gradients) for i, states in enumerate(split)]
            with torch.enable_grad():
                values = _values(block, allowed, ctx.loss)
            found = torch.autograd.grad(values, [block[i] for i in wants], outputs[0][maps])
            for i, gradient in zip(wants, found, strict=True):
                gradients[i][maps] = gradient
        return None, None, None, *(gradients.get(i) for i in range(len(split)))


def _blocks(segments: Tensor, heads: int) -> Iterator[tuple[slice, Tensor]]:
    """(slice of the maps, their attention mask [n, S, S] bool), one block after the other."""
    maps, size = len(segments) * heads, _block(segments)
    for start in range(0, maps, size):
        end = min(start + size, maps)
        rows = segments[torch.arange(start, end, device=segments.device) // heads]
        yield slice(start, end), rows[:, :, None] == rows[:, None, :]
