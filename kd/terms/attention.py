"""Terms on attention maps and on relations of queries, keys and values; a sum over pairs of layers, a mean over heads.

They are computed from the outputs of the query, key and value projections, block by block (kd.terms.attention_blocks). They hold no dropout
on attention, and the models keep their fused kernels. Memory: B x S x D for each of queries, keys and values of each layer in use, and the
same again split by heads. A few blocks of at least one [S, S] in fp32 come on top.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, field_validator

from kd.errors import KdError
from kd.models.states import EncoderShape, StateKind
from kd.terms.base import AttentionTerm
from kd.terms.layer_map import LayerMap
from kd.terms.views import AttentionView
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

    from kd.terms import attention_blocks
else:
    attention_blocks = lazy_module("kd.terms.attention_blocks")

RelationName = Literal["qq", "kk", "vv", "qk", "kq", "qv", "vq", "kv", "vk"]
LETTERS: dict[str, StateKind] = {"q": "queries", "k": "keys", "v": "values"}


class AttentionMapTerm(AttentionTerm):
    """A term on the attention maps that the models themselves compute."""

    @property
    def state_kinds(self) -> tuple[StateKind, ...]:
        return ("queries", "keys")

    def check(self, student: EncoderShape, teacher: EncoderShape, where: str) -> None:
        if student.heads != teacher.heads:
            raise KdError(
                f"{where}: expected a student of the teacher's {teacher.heads} attention heads, got {student.heads}; "
                "use relations, whose number of heads is free"
            )
        for name, shape in (("student", student), ("teacher", teacher)):
            if not shape.dot_product_scores:
                raise KdError(
                    f"{where}: expected a {name} whose attention scores are Q K^T / sqrt(d) alone, got {shape.family}, "
                    "which adds positions to them; use relations"
                )


class AttentionKL(AttentionMapTerm):
    """KL(teacher || student) of attention distributions, nats.

    MiniLM (Wang et al. 2020, arXiv:2002.10957, equation 6): layer_map: final.
    MobileBERT's attention transfer (Sun et al. 2020, arXiv:2004.02984, section 3.4): layer_map: first, all layers at once.
    One layer a phase is written as pairs.
    """

    kind: Literal["attention_kl"] = "attention_kl"

    @property
    def formula(self) -> str:
        return r"\sum_{(i,j)} \mathrm{mean}_a \, \mathrm{KL}(A^t_{j,a} \,\|\, A^s_{i,a})"

    def __call__(self, view: AttentionView) -> Tensor:
        """queries, keys [B, S, D] -> [B, S] fp32."""
        return view.compare("queries", "keys", attention_blocks.distributions_kl)


class AttentionMSE(AttentionMapTerm):
    """Mean over a document's positions of the squared difference of attention.

    of: scores, before the softmax (TinyBERT, Jiao et al. 2020, arXiv:1909.10351, equation 7), or distributions, after it.
    The mean is over the positions that may be looked at; what is masked does not count.
    """

    kind: Literal["attention_mse"] = "attention_mse"
    of: Literal["scores", "distributions"] = "scores"

    @property
    def formula(self) -> str:
        student, teacher = (r"Q^s_{i,a} K^{s\top}_{i,a} / \sqrt{d_s}", r"Q^t_{j,a} K^{t\top}_{j,a} / \sqrt{d_t}")
        if self.of == "distributions":
            student, teacher = "A^s_{i,a}", "A^t_{j,a}"
        return rf"\sum_{{(i,j)}} \mathrm{{mean}}_{{a,p}} \, ({student} - {teacher})_p^2"

    def __call__(self, view: AttentionView) -> Tensor:
        """queries, keys [B, S, D] -> [B, S] fp32."""
        return view.compare("queries", "keys", attention_blocks.scores_mse if self.of == "scores" else attention_blocks.distributions_mse)


class Relations(AttentionTerm):
    """KL(teacher || student) of relations softmax(A_a B_a^T / sqrt(d_a)), summed over relations.

    A and B are two of queries, keys and values, cut into `heads` heads a.
    MiniLM v2 (Wang et al. 2021, arXiv:2012.15828, section 3.1): relations qq, kk, vv. layer_map: the student's last layer and a chosen
    one of the teacher. Any number of heads that divides both widths is allowed, so student width and heads are free.
    MiniLM v1's value relation (arXiv:2002.10957, equations 7-9): relations [vv], heads null, which is each model's own.
    """

    kind: Literal["relations"] = "relations"
    relations: Annotated[tuple[RelationName, ...], Field(min_length=1)] = ("qq", "kk", "vv")
    heads: Annotated[int, Field(gt=0)] | None = None
    layer_map: LayerMap = "final"

    @property
    def formula(self) -> str:
        names = ", ".join(name.upper() for name in self.relations)
        return rf"\sum_{{(i,j)}} \sum_{{XY \in \{{{names}\}}}} \mathrm{{mean}}_a \, \mathrm{{KL}}(R^t_{{XY,j,a}} \,\|\, R^s_{{XY,i,a}})"

    @field_validator("relations")
    @classmethod
    def _once(cls, relations: tuple[RelationName, ...]) -> tuple[RelationName, ...]:
        if len(set(relations)) < len(relations):
            raise ValueError(f"expected each relation once, got {', '.join(relations)}; drop what stands twice, or raise weight")
        return relations

    @property
    def state_kinds(self) -> tuple[StateKind, ...]:
        return tuple(kind for letter, kind in LETTERS.items() if any(letter in relation for relation in self.relations))

    def check(self, student: EncoderShape, teacher: EncoderShape, where: str) -> None:
        if self.heads is None and student.heads != teacher.heads:
            raise KdError(
                f"{where}.heads: expected a number where student and teacher have different heads, "
                f"{student.heads} and {teacher.heads}, got null; choose one that divides both widths"
            )
        for name, shape in (("student", student), ("teacher", teacher)):
            if self.heads is not None and shape.width % self.heads:
                raise KdError(
                    f"{where}.heads: expected a number that divides the {name}'s width {shape.width}, got {self.heads}; choose another"
                )

    def __call__(self, view: AttentionView) -> Tensor:
        """queries, keys, values [B, S, D] -> [B, S] fp32."""
        first, *others = (view.compare(LETTERS[a], LETTERS[b], attention_blocks.distributions_kl, self.heads) for a, b in self.relations)
        return sum(others, start=first)
