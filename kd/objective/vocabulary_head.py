"""The vocabulary head in chunks: logits, terms and their gradients for a few hundred tokens at a time.

An MLM head ends in a decoder, logits = z W^T + b with W [V, D]. Whole logits of a micro-batch are the largest tensors of distillation
(tokens x V x 4 bytes, several copies). Here one autograd function computes the tokens in chunks:

1. student and teacher logits of a chunk, fp32 [chunk, V] (several teachers: kd.objective.teacher_outputs);
2. every term's number per token, and the chunk's share of the loss;
3. the gradient of that share for the logits, by the term's closed form or by autograd;
4. from it the gradients for z, W and b.

So no whole [N, V] tensor exists. The backward pass computes nothing again: it only returns the finished gradients.
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

    student: transformed states [N, D] and the decoder.
    labels: [N] int64.
    requests: the teacher logits that each term needs.
    scales: [K, N] fp32, the factor of term k at token i in the loss: weight / divisor, or 0 for an ignored token.
    Entry k of the sums is the sum of term k where its scale is not 0.
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
            logits = decoder.logits(states)
            gradient = None
            for k, term in enumerate(terms):
                # one term after the other, so that only one of them keeps copies of the chunk
                view = LogitView(logits, teacher_logits[k], labels[chunk])
                values, rows, own = _values_and_gradient(term, view, scales[k, chunk], any(ctx.needs_input_grad))
                scale = scales[k, chunk] if rows is None else scales[k, chunk][rows]
                loss += torch.dot(values.double(), scale.double())
                sums[k] += values.double().sum()
                if own is not None and rows is not None:
                    gradient = torch.zeros_like(logits) if gradient is None else gradient
                    gradient.index_add_(0, rows, own)
                elif own is not None:
                    gradient = own if gradient is None else gradient.add_(own)
                del own, view, values
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


def _values_and_gradient(
    term: LogitTerm, view: LogitView, scale: Tensor, wants_gradient: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """(a term's numbers [n], the rows that they are of, their scaled gradient for the logits [n, V]).

    rows: None: all of them, with 0 where the term does not look. On a CPU a term with a closed form computes only the rows it looks at.
    """
    rows = None
    looked = scale > 0
    if scale.device.type == "cpu" and term.has_closed_form(view) and not bool(looked.all()):
        rows = looked.nonzero()[:, 0]
        teacher = None if view.teacher_logits is None else view.teacher_logits[rows]
        view, scale, looked = LogitView(view.student_logits[rows], teacher, view.labels[rows]), scale[rows], looked[rows]
    result = term.closed_form(view)
    if result is not None:
        values, gradient = result
        return torch.where(looked, values, 0.0), rows, gradient.mul_(scale[:, None]) if wants_gradient else None
    logits = view.student_logits.detach().requires_grad_(wants_gradient)
    with torch.enable_grad():
        values = torch.where(looked, term(LogitView(logits, view.teacher_logits, view.labels)), 0.0)
        share = (values * scale).sum()
    if not wants_gradient:
        return values.detach(), None, None
    (own,) = torch.autograd.grad(share, logits)
    return values.detach(), None, own.contiguous()  # may be one number, expanded


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
