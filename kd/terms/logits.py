"""Terms on the vocabulary's logits. Each returns one fp32 number per token, summed over the vocabulary, never averaged over it."""

from typing import Annotated, ClassVar, Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from kd.schedules import Schedulable
from kd.terms.view import Positions, TermSettings, TokenView


class SoftTargets(TermSettings):
    """T^2 KL(softmax(teacher / T) || softmax(student / T)), nats.

    Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2: the T^2 keeps the gradient's scale when T changes.
    DistilBERT (Sanh et al. 2019, arXiv:1910.01108) takes T = 2 over all tokens that are not padding.
    """

    reads: ClassVar[Literal["logits"]] = "logits"
    asks: ClassVar[frozenset[str]] = frozenset({"logits"})
    mixes: ClassVar[bool] = True

    kind: Literal["soft_targets"] = "soft_targets"
    temperature: Annotated[float, Field(gt=0), Schedulable()] = 2.0

    def __call__(self, view: TokenView) -> Tensor:
        """logits [N, V] of both -> [N] fp32."""
        assert view.student.logits is not None
        assert view.teacher.logits is not None
        student = F.log_softmax(view.student.logits.float() / self.temperature, dim=-1)
        teacher = F.log_softmax(view.teacher.logits.float() / self.temperature, dim=-1)
        return F.kl_div(student, teacher, reduction="none", log_target=True).sum(-1) * self.temperature**2


class MaskedLM(TermSettings):
    """Cross-entropy of the true token, nats, at predicted positions only (0 elsewhere).

    Devlin et al. 2018, arXiv:1810.04805, section 3.1.
    """

    reads: ClassVar[Literal["logits"]] = "logits"

    kind: Literal["mlm"] = "mlm"
    positions: Positions = "masked"

    def __call__(self, view: TokenView) -> Tensor:
        """student logits [N, V], labels [N] -> [N] fp32."""
        assert view.student.logits is not None
        return F.cross_entropy(view.student.logits.float(), view.labels, reduction="none", ignore_index=-100)
