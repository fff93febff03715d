"""Views: the tensors that a term gets. kd.objective.objective makes them.

| view          | one number for each                                                                |
| LogitView     | of N tokens, a chunk of some hundred at a time (kd.objective.vocabulary_head)      |
| TokenView     | of N tokens: pairs of hidden states of matched layers                              |
| AttentionView | of B x S positions: queries, keys and values of matched layers                     |
| DocumentView  | of M documents: pairs of pooled states, compared with each other                   |
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kd.models.states import StateKind
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    from torch import Tensor

    from kd.terms import attention_blocks
else:
    attention_blocks = lazy_module("kd.terms.attention_blocks")


@dataclass(frozen=True)
class LogitView:
    """N tokens. Logits [N, V] fp32 (teacher_logits is None where the term needs none). labels [N] int64; -100: not predicted."""

    student_logits: Tensor
    teacher_logits: Tensor | None
    labels: Tensor

    @property
    def pair(self) -> tuple[Tensor, Tensor]:
        """The logits of student and teacher, fp32."""
        assert self.teacher_logits is not None
        return self.student_logits.float(), self.teacher_logits.float()


@dataclass(frozen=True)
class TokenView:
    """N tokens. pairs: (student, teacher) hidden states [N, D] of each matched pair of layers, of one width after projection."""

    pairs: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Layer:
    """The requested queries, keys and values of one layer: each [B, S, heads x d]."""

    states: Mapping[StateKind, Tensor]
    heads: int


@dataclass(frozen=True)
class AttentionView:
    """B rows. segments: [B, S] int64, 0 is padding. pairs: a student layer and the teacher layers it learns from."""

    segments: Tensor
    pairs: tuple[tuple[Layer, tuple[Layer, ...]], ...]

    def compare(self, left: StateKind, right: StateKind, loss: attention_blocks.AttentionLoss, heads: int | None = None) -> Tensor:
        """[B, S] fp32, summed over pairs: a loss of the scores of `left` against `right`, per head, in blocks.

        heads: None takes each model's own.
        """
        values = [
            attention_blocks.compare(
                attention_blocks.Relation(student.states[left], student.states[right]),
                [attention_blocks.Relation(layer.states[left], layer.states[right]) for layer in teachers],
                heads or student.heads,
                self.segments,
                loss,
            )
            for student, teachers in self.pairs
        ]
        return sum(values[1:], start=values[0])


@dataclass(frozen=True)
class DocumentView:
    """M documents. pairs: (student, teacher) pooled states [M, D] fp32 of each matched pair of layers.

    group: [M] int64; documents of one group are compared with each other.
    members: the numbers [n] of the documents of each group, by ascending group.
    """

    pairs: tuple[tuple[Tensor, Tensor], ...]
    group: Tensor
    members: tuple[Tensor, ...]

    @property
    def together(self) -> Tensor:
        """[M, M] bool: both documents are of one group."""
        return self.group[:, None] == self.group[None, :]
