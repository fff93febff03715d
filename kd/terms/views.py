"""What a term sees of student and teacher, and what every term declares.

| derived from | sees         | gives a number for each …                                                |
| LogitTerm    | LogitView    | of N tokens, some hundred at a time (kd.objective.vocabulary_head)                            |
| TokenTerm    | TokenView    | of N tokens: pairs of hidden states of matched layers                    |
| MapTerm      | MapView      | of B x S positions: what queries, keys and values of matched layers give |
| DocumentTerm | DocumentView | of M documents: pairs of pooled states, compared with each other         |

Views are made by kd.objective.objective: it picks the positions, averages the teacher layers of a pair and applies projections. A term
only compares.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from kd.errors import KdError
from kd.models.states import Part, Shape, State
from kd.terms.attention_blocks import Comparison, Relation, compare
from kd.terms.layer_map import LayerMap, LayerPair, settle
from kd.terms.pooling import Pooling
from kd.terms.schedules import Schedulable

Projection = Literal["none", "shared", "each"]


@dataclass(frozen=True)
class Side:
    """One model's logits for N tokens, [N, V] fp32; None where no term asked for them."""

    logits: Tensor | None = None


@dataclass(frozen=True)
class LogitView:
    """N tokens seen by both models. labels: [N] int64, IGNORED (-100) where nothing is predicted."""

    student: Side
    teacher: Side
    labels: Tensor


@dataclass(frozen=True)
class TokenView:
    """N tokens. pairs: (student, teacher) hidden states [N, D] of each matched pair of layers, of one width where the term asks for it."""

    pairs: tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Layer:
    """Queries, keys and values of one layer, as far as asked for: each [B, S, heads x d]."""

    states: Mapping[Part, Tensor]
    heads: int


@dataclass(frozen=True)
class MapView:
    """B rows. segments: [B, S] int64, 0 is padding. pairs: a student layer and the teacher layers it learns from."""

    segments: Tensor
    pairs: tuple[tuple[Layer, tuple[Layer, ...]], ...]

    def compare(self, left: Part, right: Part, comparison: Comparison, heads: int | None = None) -> Tensor:
        """[B, S] fp32, summed over pairs: scores of `left` against `right`, head by head (heads: None, the models' own), compared block by
        block.
        """
        values = [
            compare(
                Relation(student.states[left], student.states[right]),
                [Relation(layer.states[left], layer.states[right]) for layer in teachers],
                heads or student.heads,
                self.segments,
                comparison,
            )
            for student, teachers in self.pairs
        ]
        return sum(values[1:], start=values[0])


@dataclass(frozen=True)
class DocumentView:
    """M documents. pairs: (student, teacher) pooled states [M, D] fp32 of each matched pair of layers; group: [M] int64, who is compared
    with whom.
    """

    pairs: tuple[tuple[Tensor, Tensor], ...]
    group: Tensor

    @property
    def together(self) -> Tensor:
        """[M, M] bool: of one group."""
        return self.group[:, None] == self.group[None, :]


class TermSettings(BaseModel):
    """What all terms share: a weight, and whether they need a teacher."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mixes: ClassVar[bool] = False
    """Whether it sees a teacher's logits only as softmax(logits / temperature), so that several teachers can be mixed
    (kd.objective.mixture)."""

    kind: str
    weight: Annotated[float, Field(ge=0), Schedulable()] = 1.0
    teacher: Annotated[int, Field(ge=0)] | None = None
    """Which of several teachers it learns from, from 0; null: from all."""

    def __call__(self, view: Any) -> Tensor:
        """One fp32 number for each token, position or document of the view."""
        raise NotImplementedError

    @property
    def asks(self) -> frozenset[str]:
        """What the teacher has to offer: "logits", or the names of kd.models.states."""
        raise NotImplementedError

    def settled(self, student: Shape, teacher: Shape | None, where: str) -> Self:
        """The same term for these two encoders, its layers by number. KdError, one line that begins with `where`, where they cannot
        satisfy it.
        """
        return self


class LogitTerm(TermSettings):
    """A term on logits: sees a LogitView."""

    positions: Literal["all", "masked"] = "all"

    @property
    def chunks(self) -> int:
        """How many [N, V] in fp32 exist at most until its gradient is there, the models' logits among them
        (kd.objective.vocabulary_head)."""
        return 8

    @property
    def asks(self) -> frozenset[str]:
        """See TermSettings."""
        return frozenset({"logits"})


class StatesTerm(TermSettings):
    """A term on states of layers. `parts`: what it looks at of each layer; `pairs`: of which layers."""

    @property
    def parts(self) -> tuple[Part, ...]:
        """What of a layer it looks at."""
        return ("hidden",)

    @property
    def pairs(self) -> list[LayerPair]:
        """Which layers: settled pairs."""
        raise NotImplementedError

    @property
    def asks(self) -> frozenset[str]:
        """See TermSettings."""
        return frozenset(self.parts)

    def settled(self, student: Shape, teacher: Shape | None, where: str) -> Self:
        """See TermSettings."""
        if teacher is None:
            raise KdError(f"{where}: expected a teacher, got none; name one, or drop the term")
        self.check(student, teacher, where)
        return self

    def check(self, student: Shape, teacher: Shape, where: str) -> None:
        """KdError where the two encoders' sizes do not fit the term."""

    def student_states(self) -> frozenset[State]:
        """What is kept of the student's forward pass."""
        return frozenset(State(part, pair.student) for pair in self.pairs for part in self.parts)

    def teacher_states(self) -> frozenset[State]:
        """What is kept of the teacher's."""
        return frozenset(State(part, layer) for pair in self.pairs for layer in pair.teacher for part in self.parts)


class Mapped(StatesTerm):
    """A term whose layers are matched by `layer_map` (kd.terms.layer_map)."""

    layer_map: LayerMap = "uniform"

    @property
    def pairs(self) -> list[LayerPair]:
        """See StatesTerm."""
        if self.layer_map == "final":
            return [LayerPair(student=-1, teacher=[-1])]
        if isinstance(self.layer_map, str):
            raise KdError(f"objective ({self.kind}).layer_map: expected it settled for two encoders, got {self.layer_map}")
        return self.layer_map

    def settled(self, student: Shape, teacher: Shape | None, where: str) -> Self:
        """See TermSettings."""
        checked = super().settled(student, teacher, where)
        assert teacher is not None
        return checked.model_copy(update={"layer_map": settle(self.layer_map, student.layers, teacher.layers, where)})


class Projecting(StatesTerm):
    """A term on pairs of hidden states. `projection`: learned linear maps W s + b from the student's width to the teacher's.

    none: widths must be equal; shared: one for all pairs; each: one a pair. Where widths are equal it starts as the identity. It trains
    beside the student, stands in checkpoints, and is no part of the student.
    """

    projection: Projection = "none"

    def check(self, student: Shape, teacher: Shape, where: str) -> None:
        """See StatesTerm."""
        if self.projection == "none" and student.width != teacher.width:
            raise KdError(
                f"{where}: expected a student of the teacher's width {teacher.width}, got {student.width}; add projection: shared"
            )

    def projections(self) -> dict[int, str]:
        """The learned map that each student layer goes through, by its name within the term; empty where there is none."""
        if self.projection == "none":
            return {}
        return {pair.student: "shared" if self.projection == "shared" else str(pair.student) for pair in self.pairs}


class TokenTerm(Projecting):
    """A term on hidden states of tokens: sees a TokenView. positions: first is the first token of each document ([CLS])."""

    positions: Literal["all", "masked", "first"] = "all"


class MapTerm(Mapped):
    """A term on attention maps or relations: sees a MapView; a number for each query position."""

    positions: Literal["all", "masked", "first"] = "all"


class DocumentTerm(Projecting, Mapped):
    """A term that compares documents with each other: sees a DocumentView.

    pooling: a document's state is the mean over its tokens, or its first token's. group_rows: documents of so many rows of a micro-batch
    are compared with each other (of all its rows: null). Documents without enough partners are left out, also of the divisor.
    """

    partners: ClassVar[int] = 1

    layer_map: LayerMap = "final"
    pooling: Pooling = "mean"
    group_rows: Annotated[int, Field(gt=0)] | None = None
