"""The terms of a chunk by one kernel (kd.kernels.fused_terms), for objectives that it knows.

The kernel knows soft targets, mlm and logit_mse, each once at most, and one teacher. Several soft targets, top_k, mixtures of teachers and
terms of other kinds take the tiles of kd.objective.vocabulary_head. The host decides by the settings of the terms, and asks no device.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kd.kernels import fused_terms
from kd.kernels.fused_terms import Form, Logits
from kd.models.outputs import Decoder
from kd.objective.products import Products
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.terms.base import LogitTerm
from kd.terms.logits import LogitMSE, MaskedLM, SoftTargets

KINDS = {SoftTargets: "soft_targets", MaskedLM: "mlm", LogitMSE: "logit_mse"}
FUSED, TILES = "one kernel for all terms", "tile by tile, with about 12 times the memory traffic of one kernel"
"""The ways to compute the terms, in words. docs/decisions.md counts the bytes."""


@dataclass(frozen=True)
class FusedPlan:
    """The kernel for some terms. order: numbers of the terms, as the kernel counts them. teacher: the number of the one that they read."""

    form: Form
    order: tuple[int, ...]
    teacher: int | None
    temperature: float
    alpha: float


def plan_of(terms: Sequence[LogitTerm], requests: Sequence[LogitRequest | None]) -> FusedPlan | None:
    """The kernel for these terms; None: it does not know them. Numbers of schedules count as they are."""
    numbers = {KINDS.get(type(term), type(term).__name__): number for number, term in enumerate(terms)}
    asked = {request for request in requests if request is not None}
    teachers = {request.teacher for request in asked}
    if len(numbers) < len(terms) or not numbers.keys() <= set(KINDS.values()) or len(teachers) > 1 or None in teachers:
        return None
    soft = next((term for term in terms if isinstance(term, SoftTargets)), None)
    if soft is not None and soft.top_k is not None:
        return None
    labels = soft is not None and soft.alpha != 0
    form = Form(soft.divergence if soft is not None else "none", labels, "mlm" in numbers, "logit_mse" in numbers)
    temperature, alpha = (soft.temperature, soft.alpha) if soft is not None else (1.0, 0.0)
    return FusedPlan(form, tuple(numbers[name] for name in form.names), next(iter(teachers), None), temperature, alpha)


def usable_plan(
    terms: Sequence[LogitTerm], requests: Sequence[LogitRequest | None], teachers: TeacherOutputs, decoder: Decoder
) -> FusedPlan | None:
    """The kernel for these terms where this process can rely on it; None: tiles."""
    dtype, device = decoder.weight.dtype, decoder.weight.device
    if not terms or not fused_terms.possible(device) or (plan := plan_of(terms, requests)) is None:
        return None
    theirs = teachers.outputs[plan.teacher].decoder if plan.teacher is not None else None
    return None if fused_terms.problem(plan.form, dtype, theirs.weight.dtype if theirs is not None else dtype, device) else plan


def choice(terms: Sequence[LogitTerm], requests: Sequence[LogitRequest | None], dtype: torch.dtype, device: torch.device) -> str | None:
    """The way of an objective in words, with the reason for tiles; None on a device without a kernel. dtype: of the weights."""
    if not terms or not fused_terms.possible(device):
        return None
    if (plan := plan_of(terms, requests)) is None:
        return f"{TILES} (which does not know this set of terms)"
    reason = fused_terms.problem(plan.form, dtype, dtype, device)
    return f"{TILES} ({reason})" if reason else FUSED


class FusedChunks:
    """The terms' numbers and gradients of chunks, by the kernel. It has the methods of the tiles."""

    def __init__(self, plan: FusedPlan, teachers: TeacherOutputs, decoder: Decoder) -> None:
        self.plan, self.teachers = plan, teachers
        self._bias = _padded(decoder)
        self._teacher: tuple[Products, Tensor] | None = None

    def values(self, student: Products, chunk: slice, labels: Tensor, scales: Tensor, bias_gradient: Tensor | None) -> Tensor:
        """As `_Tiles.values`. The bias's gradient is the sum of gradients that were rounded to the weight's dtype."""
        plan, count = self.plan, len(labels)
        teacher = None
        if plan.teacher is not None:
            products, bias = self._of_teacher(plan.teacher, len(student.memory))
            products.compute(chunk)
            teacher = Logits(products.memory[:count], bias)
        computed = fused_terms.run(
            plan.form,
            Logits(student.memory[:count], self._bias),
            teacher,
            student.decoder.vocabulary,
            labels,
            [scales[number] for number in plan.order],
            plan.temperature,
            plan.alpha,
        )
        if bias_gradient is not None:
            logits = student.logits[:count]
            bias_gradient[: logits.shape[1]] += logits.sum(0, dtype=torch.float32)
        return torch.stack([computed[plan.order.index(number)] for number in range(len(plan.order))]).double()

    def _of_teacher(self, number: int, rows: int) -> tuple[Products, Tensor]:
        if self._teacher is None:
            outputs = self.teachers.outputs[number]
            assert outputs.transformed is not None
            assert outputs.decoder is not None
            bias = _padded(outputs.decoder)
            self._teacher = Products(f"teacher {number}", outputs.transformed, outputs.decoder, rows, len(bias)), bias
        return self._teacher


def _padded(decoder: Decoder) -> Tensor:
    """The bias with the kernel's padding."""
    bias: Tensor = torch.zeros(fused_terms.width(decoder.vocabulary), dtype=decoder.bias.dtype, device=decoder.bias.device)
    bias[: decoder.vocabulary] = decoder.bias[: decoder.vocabulary].detach()
    return bias
