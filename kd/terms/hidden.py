"""Terms on hidden states of matched layers; a sum over pairs, as the papers write it.

Memory: the hidden states of both models, B x S x D a layer. While a pair is compared, a few more of that size.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from kd.errors import KdError
from kd.models.states import EncoderShape, StateKind
from kd.terms.base import LayerMappedTerm, Projection, TokenTerm
from kd.terms.layer_map import LayerMap, LayerPair
from kd.terms.views import TokenView
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    import torch.nn.functional as F
    from torch import Tensor
else:
    F = lazy_module("torch.nn.functional")


class HiddenCosine(TokenTerm, LayerMappedTerm):
    """1 - cos(student, teacher) between hidden states, 0 .. 2.

    DistilBERT (Sanh et al. 2019, arXiv:1910.01108, section 2): torch's CosineEmbeddingLoss with target 1, of the last layers, over tokens
    that are not padding.
    """

    kind: Literal["cosine"] = "cosine"
    layer_map: LayerMap = "final"

    @property
    def formula(self) -> str:
        return rf"\sum_{{(i,j)}} 1 - \cos({self.projected}, h^t_j)"

    def __call__(self, view: TokenView) -> Tensor:
        """pairs [N, D] -> [N] fp32."""
        return _sum(1.0 - F.cosine_similarity(student.float(), teacher.float(), dim=-1) for student, teacher in view.pairs)


class Hints(TokenTerm, LayerMappedTerm):
    """1/2 ||teacher - r(student)||^2, r a learned linear regressor for each pair.

    FitNets (Romero et al. 2015, arXiv:1412.6550, equation 3): one hint layer, usually a middle one, in a phase before soft targets. The
    paper's regressor is convolutional, for images; for vectors that is W s + b. D / 2 times the mean squared error.
    """

    kind: Literal["hints"] = "hints"
    projection: Projection = "each"

    @property
    def formula(self) -> str:
        return rf"\sum_{{(i,j)}} \tfrac{{1}}{{2}} \lVert h^t_j - {self.projected} \rVert^2"

    def check(self, student: EncoderShape, teacher: EncoderShape, where: str) -> None:
        if self.projection == "none":
            raise KdError(f"{where}.projection: expected each or shared, for a hint has a regressor, got none; or use hidden_mse")

    def __call__(self, view: TokenView) -> Tensor:
        """pairs [N, D] -> [N] fp32."""
        return _sum(0.5 * (teacher.float() - student.float()).square().sum(-1) for student, teacher in view.pairs)


class Patient(TokenTerm, LayerMappedTerm):
    """|| student / |student| - teacher / |teacher| ||^2, 0 .. 4 a pair.

    PKD (Sun et al. 2019, arXiv:1908.09355, equation 7) on [CLS], the first token of each document, without the student's last layer.
    layer_map: skip (PKD-Skip) or pkd_last (PKD-Last).
    """

    kind: Literal["pkd"] = "pkd"
    layer_map: LayerMap = "skip"
    positions: Literal["all", "masked", "first"] = "first"

    @property
    def formula(self) -> str:
        student = self.projected
        return rf"\sum_{{(i,j)}} \lVert {student} / \lVert {student} \rVert - h^t_j / \lVert h^t_j \rVert \rVert^2"

    def __call__(self, view: TokenView) -> Tensor:
        """pairs [N, D] -> [N] fp32."""
        return _sum((_unit(student) - _unit(teacher)).square().sum(-1) for student, teacher in view.pairs)


class HiddenMSE(TokenTerm, LayerMappedTerm):
    """Mean over D of (student - teacher)^2 of hidden states.

    TinyBERT (Jiao et al. 2020, arXiv:1909.10351, equation 8: H^S W_h against H^T): projection: shared.
    MobileBERT's feature map transfer (Sun et al. 2020, arXiv:2004.02984, section 3.4): layer_map: first.
    """

    kind: Literal["hidden_mse"] = "hidden_mse"

    @property
    def formula(self) -> str:
        return rf"\sum_{{(i,j)}} \tfrac{{1}}{{D}} \lVert {self.projected} - h^t_j \rVert^2"

    def __call__(self, view: TokenView) -> Tensor:
        """pairs [N, D] -> [N] fp32."""
        return _sum((student.float() - teacher.float()).square().mean(-1) for student, teacher in view.pairs)


class EmbeddingMSE(TokenTerm):
    """Mean over D of (student - teacher)^2 of what the embeddings give to the first layer.

    TinyBERT (Jiao et al. 2020, arXiv:1909.10351, equation 9: E^S W_e against E^T), with projection: shared where widths differ.
    """

    kind: Literal["embedding_mse"] = "embedding_mse"

    @property
    def formula(self) -> str:
        return rf"\tfrac{{1}}{{D}} \lVert {self.projected.replace('h^s_i', 'e^s')} - e^t \rVert^2"

    @property
    def state_kinds(self) -> tuple[StateKind, ...]:
        return ("embeddings",)

    @property
    def pairs(self) -> list[LayerPair]:
        """The embeddings alone."""
        return [LayerPair(student=0, teacher=[0])]

    def __call__(self, view: TokenView) -> Tensor:
        """pairs [N, D] -> [N] fp32."""
        return _sum((student.float() - teacher.float()).square().mean(-1) for student, teacher in view.pairs)


def _sum(values: Iterable[Tensor]) -> Tensor:
    """The sum over pairs, [N] fp32."""
    first, *others = values
    return sum(others, start=first)


def _unit(states: Tensor) -> Tensor:
    """[N, D] -> [N, D] fp32 of length 1."""
    return F.normalize(states.float(), dim=-1)
