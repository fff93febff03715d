"""The vocabulary head in chunks: logits, terms and their gradients for a few hundred tokens at a time.

An MLM head ends in a decoder, logits = z W^T + b with W [V, D]. Whole logits of a micro-batch are the largest tensors of distillation
(tokens x V x 4 bytes, several copies). Here one autograd function walks the tokens in chunks:

1. student and teacher logits of a chunk, fp32 [chunk, V] (several teachers: kd.objective.teacher_outputs);
2. every term's number per token, and the chunk's share of the loss;
3. at once the gradient of that share for the logits, and from it those for z, W and b.

So nothing [N, V] exists whole, and nothing is computed a second time in the backward pass: it only hands the finished gradients on.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from kd.models.outputs import Decoder
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.terms.base import LogitTerm
from kd.terms.views import LogitView

ROWS = 8192  # of the vocabulary, in one product of the weight's gradient


def chunked_terms(
    student: tuple[Tensor, Decoder],
    teachers: TeacherOutputs,
    labels: Tensor,
    terms: Sequence[LogitTerm],
    requests: Sequence[LogitRequest | None],
    scales: Tensor,
    chunk_tokens: int,
) -> tuple[Tensor, Tensor]:
    """The logit terms of N tokens: (loss [] fp32 with gradient, sums [K] float64 without).

    student: transformed states [N, D] and the decoder. labels [N] int64. requests: the teacher logits that each
    term needs. scales [K, N] fp32: what one unit of term k at token i adds to the loss (weight / divisor, or 0 where the term does not
    look). sums[k] is the sum of term k where its scale is not 0.
    """
    transformed, decoder = student
    loss, sums = _ChunkedTerms.apply(
        transformed, decoder.weight, decoder.bias, decoder.vocabulary, teachers, labels, terms, requests, scales, chunk_tokens
    )
    return loss, sums


def whole_terms(
    logits: Tensor,
    teachers: TeacherOutputs,
    labels: Tensor,
    terms: Sequence[LogitTerm],
    requests: Sequence[LogitRequest | None],
    scales: Tensor,
) -> tuple[Tensor, Tensor]:
    """The same as `chunked_terms` for the few logits [N, V] of a task's head, by torch's own gradients."""
    loss = torch.zeros((), dtype=torch.float64, device=logits.device)
    sums = []
    for term, teacher_logits, scale in zip(terms, teachers.logits(requests, slice(None)), scales, strict=True):
        values = torch.where(scale > 0, term(LogitView(logits.float(), teacher_logits, labels)), 0.0)
        loss = loss + (values * scale).sum()
        sums.append(values.detach().double().sum())
    return loss.float(), torch.stack(sums)


class _ChunkedTerms(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        transformed: Tensor,
        weight: Tensor,
        bias: Tensor,
        vocabulary: int,
        teachers: TeacherOutputs,
        labels: Tensor,
        terms: Sequence[LogitTerm],
        requests: Sequence[LogitRequest | None],
        scales: Tensor,
        chunk_tokens: int,
    ) -> tuple[Tensor, Tensor]:
        wants_states, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        decoder = Decoder(weight, bias, vocabulary)
        states_gradient = torch.empty_like(transformed) if wants_states else None
        chunks = -(-len(transformed) // chunk_tokens)
        weight_gradient = _Sum(weight, vocabulary, chunks) if wants_weight else None
        bias_gradient = torch.zeros(bias.shape, dtype=torch.float32, device=bias.device) if wants_bias else None
        loss = torch.zeros((), dtype=torch.float64, device=transformed.device)
        sums = torch.zeros(len(terms), dtype=torch.float64, device=transformed.device)
        for start in range(0, len(transformed), chunk_tokens):
            chunk = slice(start, start + chunk_tokens)
            states = transformed[chunk]
            teacher_logits = teachers.logits(requests, chunk)
            logits = decoder.logits(states).requires_grad_(any(ctx.needs_input_grad))
            gradient = None
            for k, term in enumerate(terms):
                # one term after the other, so that only one of them keeps copies of the chunk
                with torch.enable_grad():
                    view = LogitView(logits, teacher_logits[k], labels[chunk])
                    values = torch.where(scales[k, chunk] > 0, term(view), 0.0)
                    share = (values * scales[k, chunk]).sum()
                loss += share.detach()
                sums[k] += values.detach().double().sum()
                if logits.requires_grad:
                    (own,) = torch.autograd.grad(share, logits)
                    gradient = own.contiguous() if gradient is None else gradient.add_(own)  # may be one number, expanded
                    del own
                del share, view, values
            del logits, teacher_logits
            if gradient is None:
                continue
            if bias_gradient is not None:
                bias_gradient[:vocabulary] += gradient.sum(0)
            gradient = gradient.to(weight.dtype)
            if states_gradient is not None:
                torch.mm(gradient, weight[:vocabulary], out=states_gradient[chunk])
            if weight_gradient is not None:
                weight_gradient.add(gradient, states)
        ctx.gradients = (
            states_gradient,
            weight_gradient.total() if weight_gradient is not None else None,
            bias_gradient.to(bias.dtype) if bias_gradient is not None else None,
        )
        ctx.mark_non_differentiable(sums)
        return loss.float(), sums

    @staticmethod
    def backward(ctx: Any, *outputs: Tensor) -> tuple[Tensor | None, ...]:
        scale = outputs[0]
        states, weight, bias = (None if g is None else g.mul_(scale.to(g.dtype)) for g in ctx.gradients)
        ctx.gradients = None
        return states, weight, bias, None, None, None, None, None, None, None


class _Sum:
    """The decoder's weight gradient, summed over chunks; in fp32 where the weights are not: bf16 would lose what later chunks add."""

    def __init__(self, weight: Tensor, vocabulary: int, chunks: int) -> None:
        self.weight = weight
        self.vocabulary = vocabulary
        dtype = weight.dtype if chunks == 1 else torch.float32
        self.sum = torch.zeros(weight.shape, dtype=dtype, device=weight.device)

    def add(self, gradient: Tensor, states: Tensor) -> None:
        """gradient [n, V], states [n, D]: adds gradient^T states, by blocks of rows so that no second [V, D] exists."""
        for start in range(0, self.vocabulary, ROWS):
            rows = slice(start, min(start + ROWS, self.vocabulary))
            if self.sum.dtype == states.dtype:
                self.sum[rows].addmm_(gradient[:, rows].T, states)
            else:
                self.sum[rows] += gradient[:, rows].T @ states

    def total(self) -> Tensor:
        """[V', D] in the weight's own dtype."""
        return self.sum.to(self.weight.dtype)
