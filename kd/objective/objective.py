"""The objective: turns the outputs of student and teachers into one loss. Only this module masks, weights and sums terms.

1. `for_encoders` fits the terms to the encoders: layer maps become pairs of layers, and sizes are checked. `needs`, `student_states` and
   `teacher_states` then say which outputs to compute and keep.
2. `select` finds where the terms look in a micro-batch, and `counts` how many tokens (or documents) that are. The trainer sums the
   counts over the whole update, all ranks and micro-batches.
3. A call returns the micro-batch's share of the loss: the sum over terms of weight x sum over tokens / global count.

Shares add up, so ranks, micro-batches and accumulation cannot change the loss.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from kd.batch import Batch
from kd.errors import KdError
from kd.models.outputs import EncoderOutputs
from kd.models.states import EncoderShape, StateKey
from kd.objective import fused_head
from kd.objective.selection import Selection
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.objective.vocabulary_head import chunked_terms, whole_terms
from kd.terms import Term, pooling
from kd.terms.base import AttentionTerm, DocumentTerm, LogitTerm, ProjectedTerm, StatesTerm, TermSettings
from kd.terms.layer_map import LayerSources
from kd.terms.schedules import bounds, resolved, schedules
from kd.terms.views import AttentionView, DocumentView, Layer, TokenView


@dataclass(frozen=True)
class NamedTerm:
    """A term, its name in reports, and its key in the configuration (for errors)."""

    name: str
    key: str
    term: Term


class Objective:
    """A weighted sum of terms. It knows shapes and tensors, and no model. It is built once per phase; `at` gives it an update's numbers."""

    def __init__(self, terms: Sequence[Term], chunk_tokens: int | None, places: str = "objective") -> None:
        """chunk_tokens: see `chunked_terms`. places: the setting that the terms are a list of.

        Terms of weight 0 in every update are left out.
        """
        used = [number for number, term in enumerate(terms) if max(bounds(term.weight)) > 0]
        if not used:
            raise KdError("objective: expected at least one term with a weight above 0, got none; add a term or raise a weight")
        names = numbered([terms[number].kind for number in used])
        named = [NamedTerm(name, f"{places}.{n} ({terms[n].kind})", terms[n]) for name, n in zip(names, used, strict=True)]
        self.chunk_tokens = chunk_tokens
        self.student: EncoderShape | None = None
        self.teachers: tuple[EncoderShape, ...] = ()
        self.named: list[NamedTerm] = []
        self._use(sorted(named, key=lambda one: isinstance(one.term, StatesTerm)))

    def _use(self, named: list[NamedTerm]) -> None:
        """named: terms on logits first, which is the order of all sums and counts."""
        self.named = named
        self.terms = [one.term for one in named]
        self.names = [one.name for one in named]
        self.on_logits = [one.term for one in named if isinstance(one.term, LogitTerm)]
        self.on_states = [one.term for one in named if isinstance(one.term, StatesTerm)]

    def _with(self, terms: Sequence[Term]) -> "Objective":
        """This objective with other settings of the same terms; those of weight 0 are left out."""
        other = copy.copy(self)
        pairs = zip(self.named, terms, strict=True)
        other._use([NamedTerm(one.name, one.key, term) for one, term in pairs if max(bounds(term.weight)) > 0])
        return other

    def for_encoders(self, student: EncoderShape, *teachers: EncoderShape | None, sources: LayerSources | None = None) -> "Objective":
        """The same objective for these encoders. sources: the layers that `copied` and `cka` stand for.

        Raises KdError, one line, for a term that does not fit them.
        """
        known = tuple(teacher for teacher in teachers if teacher is not None)
        fitted = self._with(
            [one.term.for_encoders(student, known[one.term.teacher or 0] if known else None, one.key, sources) for one in self.named]
        )
        fitted.student, fitted.teachers = student, known
        return fitted

    def at(self, update: int, updates: int) -> "Objective":
        """This objective in update 0 .. updates - 1: schedules are numbers, terms of weight 0 are left out, names stay."""
        if not any(schedules(term) for term in self.terms):
            return self
        return self._with([resolved(term, update, updates) for term in self.terms])

    def scheduled(self, update: int, updates: int) -> dict[str, float]:
        """The values of the schedules in update 0 .. updates - 1: {"weight/mlm": 0.5, "temperature/soft_targets": 2.0}."""
        return {
            f"{setting}/{one.name}": schedule.value(update, updates)
            for one in self.named
            for setting, schedule in schedules(one.term).items()
        }

    def learns_from(self, term: TermSettings, number: int) -> bool:
        """True if a term needs an output of teacher `number`."""
        return bool(term.required_outputs) and (len(self.teachers) < 2 or term.teacher in (None, number))

    def teacher_of(self, term: TermSettings) -> EncoderShape | None:
        """The shape of the one teacher of a term on states."""
        return self.teachers[term.teacher or 0] if self.teachers else None

    @property
    def needs(self) -> frozenset[str]:
        """The outputs that the teachers must provide: names of kd.teacher.modes.ALL_OUTPUTS."""
        return frozenset().union(*(self.needs_of(number) for number in range(max(1, len(self.teachers)))))

    def needs_of(self, number: int) -> frozenset[str]:
        """The outputs that teacher `number` must provide."""
        return frozenset().union(*(self.required_of(term, number) for term in self.terms))

    def required_of(self, term: TermSettings, number: int) -> frozenset[str]:
        """The outputs that one term needs of teacher `number`."""
        if not self.learns_from(term, number):
            return frozenset()
        if not isinstance(term, StatesTerm):
            return term.required_outputs
        last = self.teachers[number if len(self.teachers) > 1 else 0].last_hidden if self.teachers else None  # one shape for all drawn
        return frozenset("last_hidden" if state == last else state.kind for state in term.teacher_states())

    @property
    def student_states(self) -> frozenset[StateKey]:
        """The states to keep of the student's forward pass."""
        return frozenset().union(*(term.student_states() for term in self.on_states))

    def teacher_states(self, number: int = 0) -> frozenset[StateKey]:
        """The states to keep of teacher `number`'s forward pass."""
        return frozenset().union(*(term.teacher_states() for term in self.on_states if (term.teacher or 0) == number))

    @property
    def weights(self) -> list[float]:
        """The terms' weights, in the order of `names`."""
        return [term.weight for term in self.terms]

    def head_way(self, dtype: torch.dtype, device: torch.device) -> str | None:
        """The vocabulary head's way to compute the terms, in words (kd.objective.fused_head). dtype: of the weights."""
        requests = [_request(term, max(1, len(self.teachers))) for term in self.on_logits]
        return fused_head.choice(self.on_logits, requests, dtype, device)

    @property
    def projections(self) -> dict[str, int]:
        """The learned maps from the student's width, by name, with the teacher's width that each leads to."""
        return {
            _projection(one.name, own): shape.width
            for one in self.named
            if isinstance(one.term, ProjectedTerm) and (shape := self.teacher_of(one.term)) is not None
            for own in one.term.projections().values()
        }

    def select(self, batch: Batch) -> Selection:
        """The positions that the terms read in a micro-batch."""
        return Selection(batch, self.on_logits)

    def counts(self, selection: Selection) -> Tensor:
        """[K] float64 on the CPU: the tokens (or documents) that each term looks at, in the order of `names`."""
        return torch.tensor([selection.count(term) for term in self.terms], dtype=torch.float64)

    def __call__(
        self,
        student: EncoderOutputs,
        teachers: TeacherOutputs,
        selection: Selection,
        divisors: Tensor,
        projections: Mapping[str, nn.Module] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """(loss share [] fp32 with gradient, sums [K] float64). divisors [K], on either device: each term's global count; 0 counts as 1.

        projections: by the names of `projections`.
        """
        divisors = divisors.clamp(min=1)  # tensors: on a GPU, reading them would wait
        loss = student.last_hidden.new_zeros((), dtype=torch.float32)
        sums = []
        if self.on_logits:
            share, logit_sums = self._logit_terms(student, teachers, selection, divisors[: len(self.on_logits)])
            loss = loss + share
            sums.append(logit_sums)
        for one, divisor in zip(self.named[len(self.on_logits) :], divisors[len(self.on_logits) :], strict=True):
            assert isinstance(one.term, StatesTerm)
            outputs = teachers.outputs[one.term.teacher or 0]
            total = self._values(one.name, one.term, student, outputs, selection, projections or {}).sum()
            loss = loss + total * (one.term.weight / divisor).float()
            sums.append(total.detach().double().reshape(1))
        return loss, torch.cat(sums)

    def _logit_terms(
        self, student: EncoderOutputs, teachers: TeacherOutputs, selection: Selection, divisors: Tensor
    ) -> tuple[Tensor, Tensor]:
        scales = torch.stack(
            [
                selection.at_logits(term).float() * (term.weight / divisor).float()
                for term, divisor in zip(self.on_logits, divisors, strict=True)
            ]
        )
        requests = [_request(term, len(teachers.weights)) for term in self.on_logits]
        if student.logits is not None:
            return whole_terms(student.logits, teachers, selection.labels, self.on_logits, requests, scales)
        assert student.transformed is not None
        assert student.decoder is not None
        return chunked_terms(
            (student.transformed, student.decoder),
            teachers,
            selection.labels,
            self.on_logits,
            requests,
            scales,
            self.chunk_tokens,
            selection.head_rows(self.on_logits),
        )

    def _values(
        self,
        name: str,
        term: StatesTerm,
        student: EncoderOutputs,
        teacher: EncoderOutputs,
        selection: Selection,
        projections: Mapping[str, nn.Module],
    ) -> Tensor:
        """The numbers [n] fp32 of a term, where it looks."""
        segments = selection.batch.segments
        if isinstance(term, AttentionTerm):
            assert self.student is not None
            shape = self.teacher_of(term)
            assert shape is not None
            layers = tuple(
                (
                    Layer({kind: student.states[StateKey(kind, pair.student)] for kind in term.state_kinds}, self.student.heads),
                    tuple(
                        Layer({kind: teacher.states[StateKey(kind, layer)] for kind in term.state_kinds}, shape.heads)
                        for layer in pair.teacher
                    ),
                )
                for pair in term.pairs
            )
            return term(AttentionView(segments, layers))[selection.indices(term)]

        def picked(states: Tensor) -> Tensor:
            if isinstance(term, DocumentTerm):
                return pooling.pooled(states, segments, selection.documents, term.pooling)
            return states[selection.indices(term)]

        assert isinstance(term, ProjectedTerm)
        (kind,), names = term.state_kinds, term.projections()
        pairs = []
        for pair in term.pairs:
            student_states = picked(student.states[StateKey(kind, pair.student)])
            if names:
                projection = projections[_projection(name, names[pair.student])]
                student_states = projection(student_states.to(next(projection.parameters()).dtype)).to(student_states.dtype)
            targets = [picked(teacher.states[StateKey(kind, layer)]) for layer in pair.teacher]
            mean = targets[0] if len(targets) == 1 else torch.stack([target.float() for target in targets]).mean(0)
            pairs.append((student_states, mean))
        if isinstance(term, DocumentTerm):
            return term(DocumentView(tuple(pairs), *selection.groups(term)))[selection.indices(term)]
        return term(TokenView(tuple(pairs)))


def _request(term: LogitTerm, teachers: int) -> LogitRequest | None:
    """The teacher logits that a term needs; None: none."""
    if not term.required_outputs:
        return None
    if teachers == 1:
        return LogitRequest(0)
    return LogitRequest(term.teacher) if term.teacher is not None else LogitRequest(None, term.target_temperature)


def numbered(kinds: Sequence[str]) -> list[str]:
    """Kinds as names. A kind that occurs twice is numbered."""
    return [kind if kinds.count(kind) == 1 else f"{kind}_{kinds[:i].count(kind) + 1}" for i, kind in enumerate(kinds)]


def _projection(name: str, own: str) -> str:
    """The name of a learned map: the term's, and which of its maps."""
    return f"{name}_{own}" if own == "shared" else f"{name}_layer_{own}"
