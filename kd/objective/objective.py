"""From outputs to one number: the only place that masks, weights and sums terms.

1. `settled` fits the terms to two encoders (layers by number, sizes checked); `needs`, `student_states` and `teacher_states` say what is
to be computed and kept at all, `selected` which positions' logits.
2. `counts` says how many tokens (or documents) each term looks at; the engine sums them over the whole update, all ranks and micro-batches.
3. Calling the objective gives the micro-batch's share of the loss, sum over terms of weight x sum over tokens / global count.

Shares simply add up, so ranks, micro-batches and accumulation cannot change the loss (FIELD: mean of means).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kd.batch import Batch
from kd.errors import KdError
from kd.models.outputs import Decoder
from kd.models.states import LAST_HIDDEN, Shape, State
from kd.objective.mixture import TeacherHeads, Wanted
from kd.objective.vocabulary_head import chunked_terms
from kd.terms import DocumentView, Layer, MapView, Term, TokenView, pooling
from kd.terms.schedules import bounds, resolved, schedules
from kd.terms.views import DocumentTerm, LogitTerm, MapTerm, Projecting, StatesTerm, TermSettings, TokenTerm


@dataclass(frozen=True)
class ModelOutputs:
    """What one model gives the objective.

    last_hidden [B, S, D]; transformed [N, D] at the selected positions and its decoder (None: no term asked for logits); states: what
    terms asked for, [B, S, D].
    """

    last_hidden: Tensor
    transformed: Tensor | None = None
    decoder: Decoder | None = None
    states: Mapping[State, Tensor] = field(default_factory=dict)

    def state(self, wanted: State) -> Tensor:
        """One of the states [B, S, D]."""
        return self.last_hidden if wanted == LAST_HIDDEN else self.states[wanted]


@dataclass(frozen=True)
class Ensemble:
    """What several teachers give: outputs by the teacher's number, of those that some term asks; weights of all, summing to 1."""

    outputs: Mapping[int, ModelOutputs]
    weights: Sequence[float] = (1.0,)


class Objective:
    """A weighted sum of terms. Knows no model: shapes in, numbers out. Only that of one update (`at`) can be called."""

    def __init__(
        self,
        terms: Sequence[Term],
        chunk_tokens: int,
        student: Shape | None = None,
        teachers: Sequence[Shape] = (),
        names: Sequence[str] | None = None,
        places: Sequence[str] | str = "objective",
    ) -> None:
        """names: of the terms, one each; None: from their kinds, numbered where a kind stands twice.

        places: what errors call the terms, one each; or the setting that they are a list of.
        """
        computed = [number for number, term in enumerate(terms) if max(bounds(term.weight)) > 0]
        if not computed:
            raise KdError("objective: expected at least one term with a weight above 0, got none; add a term or raise a weight")
        given = dict(zip(computed, numbered([terms[number].kind for number in computed]), strict=True)) if names is None else names
        order = sorted(computed, key=lambda number: isinstance(terms[number], StatesTerm))
        self.terms = [terms[number] for number in order]
        """Logit terms first: the order of everything below."""
        self.names = [given[number] for number in order]
        self.places = [f"{places}.{number} ({terms[number].kind})" if isinstance(places, str) else places[number] for number in order]
        self.on_logits = [term for term in self.terms if isinstance(term, LogitTerm)]
        self.on_states = [term for term in self.terms if isinstance(term, StatesTerm)]
        self.chunk_tokens = chunk_tokens
        self.student, self.teachers = student, tuple(teachers)

    def settled(self, student: Shape, *teachers: Shape | None) -> "Objective":
        """The same objective for these encoders. Raises KdError, one line, for a term that they cannot satisfy."""
        known = [teacher for teacher in teachers if teacher is not None]
        terms = [
            term.settled(student, known[term.teacher or 0] if known else None, place)
            for term, place in zip(self.terms, self.places, strict=True)
        ]
        return Objective(terms, self.chunk_tokens, student, known, self.names, self.places)

    def at(self, update: int, updates: int) -> "Objective":
        """This objective in update 0 .. updates - 1: schedules are numbers, terms of weight 0 are gone, names are as before."""
        terms = [resolved(term, update, updates) for term in self.terms]
        return Objective(terms, self.chunk_tokens, self.student, self.teachers, self.names, self.places)

    def scheduled(self, update: int, updates: int) -> dict[str, float]:
        """The numbers that schedules have in update 0 .. updates - 1: {"weight/mlm": 0.5, "temperature/soft_targets": 2.0}."""
        return {
            f"{setting}/{name}": schedule.value(update, updates)
            for name, term in zip(self.names, self.terms, strict=True)
            for setting, schedule in schedules(term).items()
        }

    def learns_from(self, term: TermSettings, number: int) -> bool:
        """Whether a term asks something of teacher `number`."""
        return bool(term.asks) and (len(self.teachers) < 2 or term.teacher in (None, number))

    def teacher_of(self, term: TermSettings) -> Shape | None:
        """The shape of the one teacher of a term on states."""
        return self.teachers[term.teacher or 0] if self.teachers else None

    @property
    def needs(self) -> frozenset[str]:
        """What its teachers have to offer: names of kd.teacher.teacher.OFFERS."""
        return frozenset().union(*(self.needs_of(number) for number in range(max(1, len(self.teachers)))))

    def needs_of(self, number: int) -> frozenset[str]:
        """What teacher `number` has to offer."""
        return frozenset().union(*(self.asked_of(term, number) for term in self.terms))

    def asked_of(self, term: TermSettings, number: int) -> frozenset[str]:
        """What one term needs of teacher `number`."""
        if not self.learns_from(term, number):
            return frozenset()
        if not isinstance(term, StatesTerm):
            return term.asks
        last = {LAST_HIDDEN, State("hidden", self.teachers[number].layers - 1 if self.teachers else -1)}
        return frozenset("last_hidden" if state in last else state.part for state in term.teacher_states())

    @property
    def student_states(self) -> frozenset[State]:
        """What is kept of the student's forward pass."""
        return frozenset().union(*(term.student_states() for term in self.on_states))

    def teacher_states(self, number: int = 0) -> frozenset[State]:
        """What is kept of teacher `number`'s."""
        return frozenset().union(*(term.teacher_states() for term in self.on_states if (term.teacher or 0) == number))

    @property
    def weights(self) -> list[float]:
        """The terms' weights, in the order of `names`."""
        return [term.weight for term in self.terms]

    @property
    def projections(self) -> dict[str, int]:
        """The names of the learned maps from the student's width to a teacher's that the terms go through, and the latter."""
        return {
            _projection(name, own): shape.width
            for name, term in self._named_states()
            if isinstance(term, Projecting) and (shape := self.teacher_of(term)) is not None
            for own in term.projections().values()
        }

    def selected(self, batch: Batch) -> Tensor:
        """[B, S] bool: positions whose logits some term looks at."""
        looks = [_looks_at(term, batch) for term in self.on_logits]
        return torch.stack(looks).any(0) if looks else torch.zeros_like(batch.real)

    def counts(self, batch: Batch) -> Tensor:
        """[K] float64: tokens (or documents) each term looks at, in the order of `names`."""
        return torch.stack([_looks_at(term, batch).sum().double() for term in self.terms])

    def __call__(
        self,
        student: ModelOutputs,
        teacher: ModelOutputs | Ensemble | None,
        batch: Batch,
        divisors: Tensor,
        projections: Mapping[str, nn.Module] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(loss share [] fp32 with gradient, sums [K] float64). divisors [K]: each term's global count; 0 counts as 1.

        projections: by the names of `projections`.
        """
        ensemble = teacher if isinstance(teacher, Ensemble) else Ensemble({} if teacher is None else {0: teacher})
        divisors = divisors.clamp(min=1)
        loss = student.last_hidden.new_zeros((), dtype=torch.float32)
        sums = []
        if self.on_logits:
            share, logit_sums = self._logit_terms(student, ensemble, batch, divisors[: len(self.on_logits)])
            loss = loss + share
            sums.append(logit_sums)
        for (name, term), divisor in zip(self._named_states(), divisors[len(self.on_logits) :].tolist(), strict=True):
            own = ensemble.outputs[term.teacher or 0]
            total = self._values(name, term, student, own, batch, projections or {}).sum()
            loss = loss + total * (term.weight / divisor)
            sums.append(total.detach().double().reshape(1))
        return loss, torch.cat(sums)

    def _logit_terms(self, student: ModelOutputs, ensemble: Ensemble, batch: Batch, divisors: Tensor) -> tuple[Tensor, Tensor]:
        assert student.transformed is not None
        assert student.decoder is not None
        at = self.selected(batch)
        scales = [
            _looks_at(term, batch)[at].float() * (term.weight / divisor)
            for term, divisor in zip(self.on_logits, divisors.tolist(), strict=True)
        ]
        heads = {
            number: (outputs.transformed, outputs.decoder)
            for number, outputs in ensemble.outputs.items()
            if outputs.transformed is not None and outputs.decoder is not None
        }
        return chunked_terms(
            (student.transformed, student.decoder),
            TeacherHeads(heads, ensemble.weights),
            batch.labels[at],
            self.on_logits,
            [_wanted(term, len(ensemble.weights)) for term in self.on_logits],
            torch.stack(scales),
            self.chunk_tokens,
        )

    def _values(
        self, name: str, term: StatesTerm, student: ModelOutputs, teacher: ModelOutputs, batch: Batch, projections: Mapping[str, nn.Module]
    ) -> Tensor:
        """A term's numbers [n] fp32, where it looks."""
        at = _looks_at(term, batch)
        if isinstance(term, MapTerm):
            assert self.student is not None
            learned_from = self.teacher_of(term)
            assert learned_from is not None
            own, others = self.student.heads, learned_from.heads
            layers = tuple(
                (
                    Layer({part: student.state(State(part, pair.student)) for part in term.parts}, own),
                    tuple(Layer({part: teacher.state(State(part, layer)) for part in term.parts}, others) for layer in pair.teacher),
                )
                for pair in term.pairs
            )
            return term(MapView(batch.segments, layers))[at]

        def picked(states: Tensor) -> Tensor:
            return pooling.pooled(states, batch.segments, term.pooling) if isinstance(term, DocumentTerm) else states[at]

        assert isinstance(term, Projecting)
        (part,), through = term.parts, term.projections()
        pairs = []
        for pair in term.pairs:
            mine = picked(student.state(State(part, pair.student)))
            if through:
                projection = projections[_projection(name, through[pair.student])]
                mine = projection(mine.to(next(projection.parameters()).dtype)).to(mine.dtype)
            theirs = [picked(teacher.state(State(part, layer))) for layer in pair.teacher]
            pairs.append((mine, theirs[0] if len(theirs) == 1 else torch.stack([one.float() for one in theirs]).mean(0)))
        if isinstance(term, DocumentTerm):
            return term(DocumentView(tuple(pairs), pooling.groups(batch.segments, term.group_rows)))[at]
        return term(TokenView(tuple(pairs)))

    def _named_states(self) -> list[tuple[str, StatesTerm]]:
        return list(zip(self.names[len(self.on_logits) :], self.on_states, strict=True))


def _wanted(term: Term, teachers: int) -> Wanted | None:
    """The teachers' logits that a term sees; None: no teacher's."""
    if "logits" not in term.asks:
        return None
    if teachers == 1:
        return Wanted(0)
    return Wanted(term.teacher) if term.teacher is not None else Wanted(None, getattr(term, "temperature", 1.0))


def numbered(kinds: Sequence[str]) -> list[str]:
    """Kinds as names: one that stands twice is numbered."""
    return [kind if kinds.count(kind) == 1 else f"{kind}_{kinds[:i].count(kind) + 1}" for i, kind in enumerate(kinds)]


def _projection(name: str, own: str) -> str:
    """A learned map's name: the term's, and which of its own."""
    return f"{name}_{own}" if own == "shared" else f"{name}_layer_{own}"


def _looks_at(term: TermSettings, batch: Batch) -> Tensor:
    """Where a term looks: [B, S] bool of positions, or [M] bool of documents."""
    if isinstance(term, DocumentTerm):
        return pooling.with_partners(pooling.groups(batch.segments, term.group_rows), term.partners)
    assert isinstance(term, LogitTerm | TokenTerm | MapTerm)
    if term.positions == "first":
        return pooling.first_tokens(batch.segments)
    return batch.predicted if term.positions == "masked" else batch.real
