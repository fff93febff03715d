"""The vocabulary head in chunks: logits, terms and their gradients for a few hundred tokens at a time.

An MLM head ends in a decoder, logits = z W^T + b with W [V, D]. Whole logits of a micro-batch are the largest tensors of distillation
(tokens x V x 4 bytes, several copies). Here one autograd function computes the tokens in chunks:

1. student and teacher logits of a chunk, [chunk, V] in the weights' dtype, one matrix product each;
2. tile by tile, [tile, V] in fp32: every term's number per token, and the gradient of the chunk's share of the loss for the logits. Terms
   with a closed form share distributions (kd.terms.logit_tile); the others use autograd;
3. the gradient replaces the student's logits. The chunk's gradients for z and W are one matrix product of it each.

On an NVIDIA GPU one kernel does step 2 for most objectives, without tiles (kd.objective.fused_head).

So no whole [N, V] tensor exists. The backward pass computes nothing again: it only returns the finished gradients.
kd.objective.chunks has the sizes, kd.objective.products the matrix products, kd.objective.teacher_outputs the mixed logits of several
teachers.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kd.kernels import fused_terms
from kd.models.outputs import Decoder
from kd.objective import fused_head, head_rows
from kd.objective.chunks import chunk_rows, tile_rows
from kd.objective.head_rows import HeadRows, RowList
from kd.objective.products import Products, WeightGradient, kept_scratch
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.terms.base import LogitTerm
from kd.terms.logit_tile import LogitTile, Scratch
from kd.terms.views import LogitView


def chunked_terms(
    student: tuple[Tensor, Decoder],
    teachers: TeacherOutputs,
    labels: Tensor,
    terms: Sequence[LogitTerm],
    requests: Sequence[LogitRequest | None],
    scales: Tensor,
    chunk_tokens: int | None,
    rows: HeadRows | None = None,
) -> tuple[Tensor, Tensor]:
    """The logit terms of N tokens: (loss [] fp32 with gradient, sums [K] float64 without).

    student: transformed states [N, D] and the decoder.
    labels: [N] int64.
    requests: the teacher logits that each term needs.
    scales: [K, N] fp32, the factor of term k at token i in the loss: weight / divisor, or 0 for an ignored token.
    chunk_tokens: rows of logits at a time; None: kd.objective.chunks.
    rows: those that each term reads. None: they are read from scales and labels, for which a GPU would make the host wait.
    Entry k of the sums is the sum of term k where its scale is not 0.
    """
    transformed, decoder = student
    known = rows or head_rows.read(scales, labels)
    loss, sums = _ChunkedTerms.apply(
        transformed, decoder.weight, decoder.bias, decoder.vocabulary, teachers, labels, terms, requests, scales, chunk_tokens, known
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
        chunk_tokens: int | None,
        rows: HeadRows,
    ) -> tuple[Tensor, Tensor]:
        wants_states, wants_weight, wants_bias = wants = ctx.needs_input_grad[:3]
        decoder, device, count = Decoder(weight, bias, vocabulary), transformed.device, len(transformed)
        most = chunk_rows(chunk_tokens, vocabulary, weight.element_size(), device.type)
        chunks = -(-count // most)
        size = -(-count // max(1, chunks))  # of equal chunks
        plan = fused_head.usable_plan(terms, requests, teachers, decoder)
        student = Products("student", transformed, decoder, size, fused_terms.width(vocabulary) if plan else None)
        computing: _Tiles | fused_head.FusedChunks
        if plan is not None:
            computing = fused_head.FusedChunks(plan, teachers, decoder)
        else:
            scratch = kept_scratch(tile_rows(size, vocabulary, device.type, torch.get_num_threads()), vocabulary, device)
            computing = _Tiles(terms, requests, teachers, scratch, any(wants), rows)
        states_gradient = torch.empty_like(transformed) if wants_states else None
        weight_gradient = WeightGradient(decoder, chunks) if wants_weight else None
        bias_gradient = torch.zeros(bias.shape, dtype=torch.float32, device=device) if wants_bias else None
        loss = torch.zeros((), dtype=torch.float64, device=device)
        sums = torch.zeros(len(terms), dtype=torch.float64, device=device)
        for start in range(0, count, max(1, size)):
            chunk = slice(start, start + size)
            logits = student.compute(chunk)
            values = computing.values(student, chunk, labels[chunk], scales[:, chunk], bias_gradient)
            loss += (values * scales[:, chunk]).sum()
            sums += values.sum(1)
            if states_gradient is not None:
                torch.mm(logits, weight[:vocabulary], out=states_gradient[chunk])
            if weight_gradient is not None:
                weight_gradient.add(logits, transformed[chunk])
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
        unscaled = scale.device.type == "cpu" and float(scale) == 1  # on a GPU, reading it would wait
        states, weight, bias = (g if g is None or unscaled else g.mul_(scale.to(g.dtype)) for g in ctx.gradients)
        ctx.gradients = None
        return states, weight, bias, None, None, None, None, None, None, None, None


class _Tiles:
    """The terms' numbers and gradients of chunks, tile by tile."""

    def __init__(
        self,
        terms: Sequence[LogitTerm],
        requests: Sequence[LogitRequest | None],
        teachers: TeacherOutputs,
        scratch: Scratch,
        wants_gradient: bool,
        rows: HeadRows,
    ) -> None:
        self.terms, self.requests, self.teachers, self.scratch = terms, requests, teachers, scratch
        self.wants_gradient = wants_gradient
        self.looked, self.labelled = rows.looked, rows.labelled
        self._products: dict[int, Products] = {}

    def values(self, student: Products, chunk: slice, labels: Tensor, scales: Tensor, bias_gradient: Tensor | None) -> Tensor:
        """The terms' numbers [K, n] float64, 0 where the scale is 0.

        Replaces the student's products by the gradient of the logits, and adds its sum over the rows to bias_gradient [V'].
        """
        for number in self.teachers.asked(self.requests):
            self._of_teacher(number, student).compute(chunk)
        values = torch.zeros_like(scales)
        for start in range(0, len(labels), self.scratch.rows):
            rows = slice(start, min(start + self.scratch.rows, len(labels)))
            whole = slice(chunk.start + rows.start, chunk.start + rows.stop)
            taught = {number: products.tile(rows, self.scratch) for number, products in self._products.items()}
            answers = self.teachers.answers(self.requests, taught)
            tile = LogitTile(student.tile(rows, self.scratch), labels[rows], self.scratch, partial(self.labelled.within, whole))
            for k, term in enumerate(self.terms):
                if self.looked[k].count(whole) > 0:
                    values[k, rows] = self._values(term, tile, answers[k], scales[k, rows], self.looked[k], whole)
            gradient = tile.gradient() if self.wants_gradient else None
            if gradient is None:
                student.logits[rows].zero_()
            else:
                student.logits[rows].copy_(gradient)
                if bias_gradient is not None:
                    bias_gradient[: gradient.shape[1]] += gradient.sum(0)
            self.scratch.release()
        return torch.where(scales > 0, values, 0.0).double()

    def _of_teacher(self, number: int, student: Products) -> Products:
        if number not in self._products:
            outputs = self.teachers.outputs[number]
            assert outputs.transformed is not None
            assert outputs.decoder is not None
            self._products[number] = Products(f"teacher {number}", outputs.transformed, outputs.decoder, len(student.logits))
        return self._products[number]

    def _values(self, term: LogitTerm, tile: LogitTile, teacher: Tensor | None, scale: Tensor, looked: RowList, whole: slice) -> Tensor:
        """A term's numbers [n] in a tile, rows `whole` of the head, which gets their gradient.

        The numbers of rows that the term does not read are 0, and a closed form does not compute them.
        """
        view = LogitView(tile.student, teacher, tile.labels)
        if not term.has_closed_form(view):
            return self._by_autograd(term, tile, view, scale)
        if looked.count(whole) == len(scale) or not term.required_outputs:
            return term.closed_form(view, tile, scale)
        rows = looked.within(whole)
        part = tile.part(rows)
        some = LogitView(part.student, None if teacher is None else tile.rows_of(teacher, rows), part.labels)
        values = torch.zeros_like(scale)
        values[rows.index] = term.closed_form(some, part, scale[rows.index])
        return values

    def _by_autograd(self, term: LogitTerm, tile: LogitTile, view: LogitView, scale: Tensor) -> Tensor:
        logits = view.student_logits.detach().requires_grad_(self.wants_gradient)
        with torch.enable_grad():
            values = torch.where(scale > 0, term(LogitView(logits, view.teacher_logits, view.labels)), 0.0)
            share = (values * scale).sum()
        if self.wants_gradient:
            (gradient,) = torch.autograd.grad(share, logits)
            tile.add(gradient.contiguous(), None)  # may be one number, expanded
        return values.detach()
