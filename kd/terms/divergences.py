"""Divergences of two distributions over the vocabulary: their formulas, and their closed forms on a tile."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from kd.terms.logit_tile import LogitTile, Scratch

Divergence = Literal["forward", "reverse", "symmetric", "jensen_shannon"]


def divergence(student: Tensor, teacher: Tensor, kind: Divergence) -> Tensor:
    """log-probabilities [N, V] of both -> [N] nats."""
    if kind == "forward":
        return _kl(teacher, student)
    if kind == "reverse":
        return _kl(student, teacher)
    if kind == "symmetric":
        return 0.5 * (_kl(teacher, student) + _kl(student, teacher))
    middle = torch.logaddexp(student, teacher) - torch.log(torch.tensor(2.0))
    return 0.5 * (_kl(teacher, middle) + _kl(student, middle))


def with_tail(log_probs: Tensor, tokens: Tensor) -> Tensor:
    """log-probabilities [N, V] -> [N, k + 1]: those of tokens [N, k], the last one of all others together."""
    # summed over the others themselves: 1 - sum knows nothing below 1e-7 in fp32, and reverse KL weighs its logarithm
    rest = log_probs.scatter(-1, tokens, float("-inf")).logsumexp(-1, keepdim=True)
    return torch.cat([log_probs.gather(-1, tokens), rest], dim=-1)


def add_divergence(tile: LogitTile, teacher: Tensor, temperature: float, kind: Divergence, factor: Tensor) -> Tensor:
    """The divergence [n] nats of softmax(teacher / T) and softmax(student / T); adds factor [n] x its gradient for student / T."""
    ours, theirs = tile.distribution(tile.student, temperature), tile.distribution(teacher, temperature)
    offset = ours.log_mass - theirs.log_mass
    work = tile.take()
    if kind == "forward":
        values = torch.sub(theirs.logits, ours.logits, out=work).mul_(theirs.probabilities).sum(-1).add_(offset)
        ours.add(factor)
        theirs.add(-factor)
        return values
    gap = torch.sub(ours.logits, theirs.logits, out=tile.take()).sub_(offset[:, None])  # log q - log p
    if kind == "jensen_shannon":
        softened = F.softplus(-gap).neg_().add_(math.log(2))  # log q - log m
        reverse = torch.mul(softened, ours.probabilities, out=work).sum(-1)
        values = reverse + torch.sub(softened, gap, out=work).mul_(theirs.probabilities).sum(-1)
        tile.add(softened.sub_(reverse[:, None]).mul_(ours.probabilities), 0.5 * factor)
        return values.mul_(0.5)
    reverse = torch.mul(gap, ours.probabilities, out=work).sum(-1)
    if kind == "reverse":
        tile.add(gap.sub_(reverse[:, None]).mul_(ours.probabilities), factor)
        return reverse
    values = 0.5 * (reverse - torch.mul(gap, theirs.probabilities, out=work).sum(-1))
    tile.add(gap.sub_(reverse[:, None] - 1).mul_(ours.probabilities), 0.5 * factor)  # q (log q - log p - KL) + q - p
    theirs.add(-0.5 * factor)
    return values


def add_top_k_divergence(tile: LogitTile, teacher: Tensor, temperature: float, kind: Divergence, factor: Tensor, tokens: Tensor) -> Tensor:
    """As `add_divergence`, over the outcomes tokens [n, k] and the tail, which is all others together.

    An outcome's logit is its token's; the tail's is log sum exp of the others. The gradient of the tail's logit for one of the others is
    that token's share of the tail.
    """
    outcomes = []
    for logits in (tile.student, teacher):
        shifted = tile.distribution(logits, temperature).logits
        others = tile.take().copy_(shifted).scatter_(-1, tokens, float("-inf"))
        largest = others.amax(-1, keepdim=True)
        outcomes.append(torch.cat([shifted.gather(-1, tokens), largest], -1))
        shares = torch.softmax(others, -1, out=others)
        outcomes[-1][:, -1] -= shares.amax(-1).log_()
        if logits is tile.student:
            own_shares = shares
    small = LogitTile(outcomes[0], tile.labels, Scratch(len(tokens), tokens.shape[-1] + 1, tokens.device))
    values = add_divergence(small, outcomes[1], 1.0, kind, factor)
    gradient = small.gradient()
    assert gradient is not None
    tile.add(own_shares, gradient[:, -1])
    tile.add_at(tokens, gradient[:, :-1])
    return values


def _kl(one: Tensor, other: Tensor) -> Tensor:
    """KL(one || other) of log-probabilities [N, V] -> [N] nats."""
    return F.kl_div(other, one, reduction="none", log_target=True).sum(-1)
