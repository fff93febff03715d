"""Terms on the vocabulary's logits. Each returns one fp32 number per token, summed over the vocabulary, never averaged over it.

Memory: chunk_tokens x V in the weights' dtype for each model, and `copies` times tile x V in fp32, for any batch
(kd.objective.chunks). It is measured in tests/benchmarks/bench_terms.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field

from kd.terms.base import LogitTerm, shown
from kd.terms.schedules import Schedulable
from kd.terms.views import LogitView
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from kd.terms import divergences
    from kd.terms.logit_tile import LogitTile
else:
    torch, F, divergences = lazy_module("torch"), lazy_module("torch.nn.functional"), lazy_module("kd.terms.divergences")

Divergence = Literal["forward", "reverse", "symmetric", "jensen_shannon"]
OUT_OF_REACH = -1e4
"""The logit of a class that a row does not have: a position of padding. Its probability is 0, and no formula gives NaN."""


class SoftTargets(LogitTerm):
    """alpha CE(student, label) + (1 - alpha) T^2 D(p, q), nats, with p = softmax(teacher / T), q = softmax(student / T).

    Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2. The T^2 keeps the gradient's scale when T changes. The student's own
    cross-entropy is at temperature 1.
    DistilBERT (Sanh et al. 2019, arXiv:1910.01108): T = 2, alpha = 0, over all tokens that are not padding.

    divergence D:
      forward: KL(p || q), Hinton's.
      reverse: KL(q || p) (MiniLLM, Gu et al. 2023, arXiv:2306.08543, section 2).
      symmetric: (KL(p || q) + KL(q || p)) / 2.
      jensen_shannon: (KL(p || m) + KL(q || m)) / 2 with m = (p + q) / 2 (Lin 1991).
    top_k: only the teacher's k most likely tokens are known. The rest of its mass is one more outcome, the tail. KL is over k + 1 outcomes,
    so no mass is lost. Truncating and renormalising would teach a distribution that is too sure.
    """

    mixes: ClassVar[bool] = True

    kind: Literal["soft_targets"] = "soft_targets"
    temperature: Annotated[float, Field(gt=0), Schedulable()] = 2.0
    divergence: Divergence = "forward"
    alpha: Annotated[float, Field(ge=0, le=1), Schedulable()] = 0.0
    top_k: Annotated[int, Field(gt=0)] | None = None

    @property
    def formula(self) -> str:
        temperature = shown(self.temperature, "T")
        teacher, student = (rf"\sigma(z^{model} / {temperature})" for model in "ts")
        kind = {"forward": "KL", "reverse": "KL", "symmetric": "KL_{sym}", "jensen_shannon": "JS"}[self.divergence]
        first, second = (student, teacher) if self.divergence == "reverse" else (teacher, student)
        soft = rf"{temperature}^2 \, \mathrm{{{kind}}}({first} \,\|\, {second})"
        if self.alpha == 0:
            return soft
        alpha = shown(self.alpha, r"\alpha")
        return rf"{alpha} \, (-\log \sigma(z^s)_y) + (1 - {alpha}) \, {soft}"

    @property
    def copies(self) -> int:
        label = 0 if self.alpha == 0 else 3
        if self.top_k is not None:
            return 4 + label
        return {"forward": 5, "reverse": 6, "symmetric": 6, "jensen_shannon": 8}[self.divergence] + label

    @property
    def target_temperature(self) -> float:
        return self.temperature

    def has_closed_form(self, view: LogitView) -> bool:
        return not view.labels.is_floating_point()

    def closed_form(self, view: LogitView, tile: LogitTile, scale: Tensor) -> Tensor:
        """d T^2 KL(p || q) / dz = T (q - p), and so on for the other divergences."""
        _, teacher = view.pair
        factor = scale * ((1 - self.alpha) * self.temperature)
        values = torch.zeros_like(scale)
        if self.alpha < 1 and self.top_k is not None and self.top_k < teacher.shape[-1]:
            tokens = tile.distribution(teacher, self.temperature).logits.topk(self.top_k, dim=-1).indices
            values = divergences.add_top_k_divergence(tile, teacher, self.temperature, self.divergence, factor, tokens)
        elif self.alpha < 1:
            values = divergences.add_divergence(tile, teacher, self.temperature, self.divergence, factor)
        values = values * ((1 - self.alpha) * self.temperature**2)
        return values.add_(tile.cross_entropy(scale * self.alpha), alpha=self.alpha) if self.alpha > 0 else values

    def __call__(self, view: LogitView) -> Tensor:
        """logits [N, V] of both, labels [N] -> [N] fp32.

        Labels that are real numbers (a regression task): alpha (student - label)^2 + (1 - alpha) (student - teacher)^2.
        """
        student, teacher = view.pair
        if view.labels.is_floating_point():
            return self.alpha * squared_error(student, view.labels) + (1 - self.alpha) * (student - teacher).square().sum(-1)
        own = F.log_softmax(student / self.temperature, dim=-1)
        target = F.log_softmax(teacher / self.temperature, dim=-1)
        if self.top_k is not None and self.top_k < target.shape[-1]:
            tokens = target.topk(self.top_k, dim=-1).indices
            own, target = divergences.with_tail(own, tokens), divergences.with_tail(target, tokens)
        soft = divergences.divergence(own, target, self.divergence) * self.temperature**2
        if self.alpha == 0:
            return soft
        return self.alpha * F.cross_entropy(student, view.labels, reduction="none", ignore_index=-100) + (1 - self.alpha) * soft


class MaskedLM(LogitTerm):
    """Cross-entropy of the true token, nats, at predicted positions only (0 elsewhere).

    Devlin et al. 2018, arXiv:1810.04805, section 3.1.
    """

    kind: Literal["mlm"] = "mlm"
    positions: Literal["all", "masked"] = "masked"

    @property
    def formula(self) -> str:
        return r"-\log \sigma(z^s)_y"

    @property
    def copies(self) -> int:
        return 3

    @property
    def required_outputs(self) -> frozenset[str]:
        """Nothing: no teacher is needed."""
        return frozenset()

    def has_closed_form(self, view: LogitView) -> bool:
        return True

    def closed_form(self, view: LogitView, tile: LogitTile, scale: Tensor) -> Tensor:
        """d CE / dz = softmax(z) - the label's one-hot vector."""
        return tile.cross_entropy(scale)

    def __call__(self, view: LogitView) -> Tensor:
        """student logits [N, V], labels [N] -> [N] fp32."""
        return F.cross_entropy(view.student_logits.float(), view.labels, reduction="none", ignore_index=-100)


class LogitMSE(LogitTerm):
    """1/2 ||student - teacher||^2 over the logits of a token.

    Ba, Caruana 2014, arXiv:1312.6184, equation 1. A sum over the vocabulary: a logit's gradient is its own difference, for any V.
    """

    kind: Literal["logit_mse"] = "logit_mse"

    @property
    def formula(self) -> str:
        return r"\tfrac{1}{2} \lVert z^s - z^t \rVert^2"

    @property
    def copies(self) -> int:
        return 2

    def has_closed_form(self, view: LogitView) -> bool:
        return True

    def closed_form(self, view: LogitView, tile: LogitTile, scale: Tensor) -> Tensor:
        """The gradient is the difference itself."""
        student, teacher = view.pair
        difference = torch.sub(student, teacher, out=tile.take())
        tile.add(difference, scale)
        return torch.mul(difference, difference, out=tile.take()).sum(-1).mul_(0.5)

    def __call__(self, view: LogitView) -> Tensor:
        """logits [N, V] of both -> [N] fp32."""
        student, teacher = view.pair
        return 0.5 * (student - teacher).square().sum(-1)


class TaskLoss(LogitTerm):
    """The task's own loss against the labels; 0 for rows without one.

    Cross-entropy, nats, for classes, tags, and start and end of an answer. Each label of a multi-label task is one of two classes.
    Squared error for regression.
    label_smoothing s: the target is (1 - s) of the label and s / V of every class (Szegedy et al. 2016, arXiv:1512.00567, section 7).
    V is the number of the row's own classes: the padding of an answer's text is none.
    """

    kind: Literal["task_loss"] = "task_loss"
    positions: Literal["all", "masked"] = "masked"
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @property
    def formula(self) -> str:
        return rf"\ell_{{{self.label_smoothing:g}}}(z^s, y)" if self.label_smoothing else r"\ell(z^s, y)"

    @property
    def required_outputs(self) -> frozenset[str]:
        """Nothing: no teacher is needed."""
        return frozenset()

    def __call__(self, view: LogitView) -> Tensor:
        """student logits [N, V], labels [N] -> [N] fp32."""
        logits = view.student_logits.float()
        if view.labels.is_floating_point():
            return squared_error(logits, view.labels)
        values = F.cross_entropy(logits, view.labels, reduction="none", ignore_index=-100)
        if self.label_smoothing == 0:
            return values
        classes = (logits > OUT_OF_REACH).float()
        of_all = -(F.log_softmax(logits, dim=-1) * classes).sum(-1) / classes.sum(-1).clamp(min=1)
        return torch.where(view.labels >= 0, (1 - self.label_smoothing) * values + self.label_smoothing * of_all, 0.0)


def squared_error(numbers: Tensor, labels: Tensor) -> Tensor:
    """numbers [N, 1], labels [N] float -> [N]; 0 where a label is NaN (there is none)."""
    return torch.where(labels.isnan(), 0.0, (numbers[:, 0] - labels.nan_to_num()).square())
