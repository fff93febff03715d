"""The base classes of the terms. A term is one frozen model: its fields are its YAML keys, and its call is its formula."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from kd.errors import KdError
from kd.models.states import EncoderShape, StateKey, StateKind
from kd.terms.layer_map import LayerMap, LayerPair, LayerSources, resolve_layer_map
from kd.terms.schedules import Schedulable

if TYPE_CHECKING:
    from torch import Tensor

    from kd.terms.logit_tile import LogitTile
    from kd.terms.views import LogitView

Projection = Literal["none", "shared", "each"]
Pooling = Literal["mean", "first"]
Positions = Literal["all", "masked", "first"]


class TermSettings(BaseModel):
    """Settings of every term."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    mixes: ClassVar[bool] = False
    """True: the term sees teacher logits only as softmax(logits / temperature), so that several teachers can be mixed."""

    kind: str
    weight: Annotated[float, Field(ge=0), Schedulable()] = 1.0
    teacher: Annotated[int, Field(ge=0)] | None = None
    """The number, from 0, of the teacher that the term learns from. null: all teachers."""

    def __call__(self, view: Any) -> Tensor:
        """One fp32 number for each token, position or document of the view."""
        raise NotImplementedError

    @property
    def required_outputs(self) -> frozenset[str]:
        """The teacher outputs that the term needs: "logits", or kinds of states."""
        raise NotImplementedError

    @property
    def formula(self) -> str:
        """LaTeX of the number for one token or document, with the term's settings. kd.export.model_card explains the letters."""
        raise NotImplementedError

    @property
    def masked_only(self) -> bool:
        """True: the term uses the outputs of masked positions only."""
        return False

    def for_encoders(self, student: EncoderShape, teacher: EncoderShape | None, where: str, sources: LayerSources | None = None) -> Self:
        """The same term for these two encoders, with its layer map as pairs.

        Raises KdError, one line that begins with `where`, if the encoders do not fit the term.
        """
        return self


class LogitTerm(TermSettings):
    """A term on logits. Its view is a LogitView."""

    positions: Literal["all", "masked"] = "all"

    def has_closed_form(self, view: LogitView) -> bool:
        """True if the term has `closed_form` for views like this one."""
        return False

    def closed_form(self, view: LogitView, tile: LogitTile, scale: Tensor) -> Tensor:
        """The number of each token [n] fp32. Adds scale [n] x its gradient for the student's logits to the tile, without autograd.

        The view's logits are the tile's. The head is faster with it: see kd.objective.vocabulary_head.
        """
        raise NotImplementedError

    @property
    def copies(self) -> int:
        """The number of [tile, V] fp32 tensors that the term makes at most, of the logits of both (kd.objective.vocabulary_head)."""
        return 6

    @property
    def required_outputs(self) -> frozenset[str]:
        return frozenset({"logits"})

    @property
    def masked_only(self) -> bool:
        return self.positions == "masked"

    @property
    def target_temperature(self) -> float:
        """The temperature at which the term reads the teachers' distributions."""
        return 1.0


class StatesTerm(TermSettings):
    """A term on hidden tensors of layers."""

    @property
    def state_kinds(self) -> tuple[StateKind, ...]:
        """The kinds of states that the term reads of each layer."""
        return ("hidden",)

    @property
    def pairs(self) -> list[LayerPair]:
        """The matched layers, by number."""
        raise NotImplementedError

    @property
    def required_outputs(self) -> frozenset[str]:
        return frozenset(self.state_kinds)

    def for_encoders(self, student: EncoderShape, teacher: EncoderShape | None, where: str, sources: LayerSources | None = None) -> Self:
        if teacher is None:
            raise KdError(f"{where}: expected a teacher, got none; name one, or drop the term")
        self.check(student, teacher, where)
        return self

    def check(self, student: EncoderShape, teacher: EncoderShape, where: str) -> None:
        """Raises KdError if the sizes of the encoders do not fit the term."""

    def student_states(self) -> frozenset[StateKey]:
        """The states of the student's forward pass that the term needs."""
        return frozenset(StateKey(kind, pair.student) for pair in self.pairs for kind in self.state_kinds)

    def teacher_states(self) -> frozenset[StateKey]:
        """The states of the teacher's forward pass that the term needs."""
        return frozenset(StateKey(kind, layer) for pair in self.pairs for layer in pair.teacher for kind in self.state_kinds)


class LayerMappedTerm(StatesTerm):
    """A term whose layers are matched by `layer_map` (kd.terms.layer_map)."""

    layer_map: LayerMap = "uniform"

    @property
    def pairs(self) -> list[LayerPair]:
        if isinstance(self.layer_map, str):
            raise KdError(f"objective ({self.kind}).layer_map: '{self.layer_map}' was not resolved (a bug of Stillhouse; please report it)")
        return self.layer_map

    def for_encoders(self, student: EncoderShape, teacher: EncoderShape | None, where: str, sources: LayerSources | None = None) -> Self:
        checked = super().for_encoders(student, teacher, where, sources)
        assert teacher is not None
        pairs = resolve_layer_map(self.layer_map, student.layers, teacher.layers, where, sources, self.teacher or 0)
        return checked.model_copy(update={"layer_map": pairs})


class ProjectedTerm(StatesTerm):
    """A term on pairs of hidden states. `projection`: learned linear maps W s + b from the student's width to the teacher's.

    none: widths must be equal. shared: one map for all pairs. each: one map per pair. Where widths are equal, a map starts as the
    identity. Maps train with the student and are in checkpoints, but not in the exported student.
    """

    any_width: ClassVar[bool] = False
    """True: the formula compares models of different widths without a projection."""

    projection: Projection = "none"

    def check(self, student: EncoderShape, teacher: EncoderShape, where: str) -> None:
        if self.projection == "none" and not self.any_width and student.width != teacher.width:
            raise KdError(
                f"{where}: expected a student of the teacher's width {teacher.width}, got {student.width}; add projection: shared"
            )

    @property
    def projected(self) -> str:
        """LaTeX of the student's state, through its learned map if there is one."""
        return "h^s_i" if self.projection == "none" else "(W h^s_i + b)"

    def projections(self) -> dict[int, str]:
        """The name, within the term, of the map of each student layer. Empty without projection."""
        if self.projection == "none":
            return {}
        return {pair.student: "shared" if self.projection == "shared" else str(pair.student) for pair in self.pairs}


class TokenTerm(ProjectedTerm):
    """A term on hidden states of tokens. Its view is a TokenView. positions: first is the first token of each document ([CLS])."""

    positions: Positions = "all"

    @property
    def masked_only(self) -> bool:
        return self.positions == "masked"


class AttentionTerm(LayerMappedTerm):
    """A term on attention maps or relations. Its view is an AttentionView. It returns a number for each query position."""

    positions: Positions = "all"

    @property
    def masked_only(self) -> bool:
        return self.positions == "masked"


class DocumentTerm(ProjectedTerm, LayerMappedTerm):
    """A term that compares documents with each other. Its view is a DocumentView.

    pooling: the state of a document is the mean over its tokens, or its first token's.
    group_rows: documents within so many rows of a micro-batch are compared (null: within all its rows).
    Documents without enough partners count neither in the loss nor in the divisor.
    """

    partners: ClassVar[int] = 1
    """The number of other documents that a group needs."""

    layer_map: LayerMap = "final"
    pooling: Pooling = "mean"
    group_rows: Annotated[int, Field(gt=0)] | None = None


def shown(value: Any, symbol: str) -> str:
    """A number in LaTeX; the symbol, as a function of the update u, where a schedule changes it."""
    return f"{value:g}" if isinstance(value, int | float) else f"{symbol}(u)"


def has_layer_map(term: TermSettings, name: str) -> bool:
    """True if the term's `layer_map` is this named map."""
    return isinstance(term, LayerMappedTerm) and term.layer_map == name
