"""From outputs to one number: the only place that masks, weights and sums terms.

1. `selected` says which positions' logits are needed at all (masked ones only, unless a term looks at all).
2. `counts` says how many tokens each term looks at; the engine sums them over the whole update, all ranks and micro-batches.
3. Calling the objective gives the micro-batch's share of the loss, sum over terms of weight x sum over tokens / global count.

Shares simply add up, so ranks, micro-batches and accumulation cannot change the loss (FIELD: mean of means).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from kd.batch import Batch
from kd.decoder import Decoder
from kd.errors import KdError
from kd.head import chunked_terms
from kd.mixture import TeacherHeads, Wanted
from kd.schedules import bounds, resolved, schedules
from kd.terms import Side, Term, TokenView


@dataclass(frozen=True)
class ModelOutputs:
    """What one model gives the objective: last hidden states [B, S, D]; transformed [N, D] at the selected positions; its decoder."""

    last_hidden: Tensor
    transformed: Tensor
    decoder: Decoder


@dataclass(frozen=True)
class Ensemble:
    """What several teachers give: outputs by the teacher's number, of those that some term asks; weights of all, summing to 1."""

    outputs: Mapping[int, ModelOutputs]
    weights: Sequence[float] = (1.0,)


class Objective:
    """A weighted sum of terms. Knows no model: shapes in, numbers out. Only that of one update (`at`) can be called."""

    def __init__(self, terms: Sequence[Term], chunk_tokens: int, names: Sequence[str] | None = None) -> None:
        """names: of the terms, one each; None: from their kinds, numbered where a kind stands twice."""
        computed = [number for number, term in enumerate(terms) if max(bounds(term.weight)) > 0]
        if not computed:
            raise KdError("objective: expected at least one term with a weight above 0, got none; add a term or raise a weight")
        self.terms = [terms[number] for number in computed]
        self.chunk_tokens = chunk_tokens
        self.on_logits = [term for term in self.terms if term.reads == "logits"]
        self.on_hidden = [term for term in self.terms if term.reads == "last_hidden"]
        self._names = [names[number] for number in computed] if names is not None else numbered([term.kind for term in self.terms])

    def at(self, update: int, updates: int) -> "Objective":
        """This objective in update 0 .. updates - 1: schedules are numbers, terms of weight 0 are gone, names are as before."""
        return Objective([resolved(term, update, updates) for term in self.terms], self.chunk_tokens, self._names)

    @property
    def needs(self) -> frozenset[str]:
        """What the teacher has to offer."""
        return frozenset().union(*(term.asks for term in self.terms))

    def needs_of(self, number: int, several: bool) -> frozenset[str]:
        """What one of several teachers has to offer."""
        return frozenset().union(*(term.asks for term in self.terms if not several or term.teacher in (None, number)))

    @property
    def names(self) -> list[str]:
        """One name a term, in the order of `sums`."""
        reads = [term.reads for term in self.terms]
        return [name for wanted in ("logits", "last_hidden") for name, read in zip(self._names, reads, strict=True) if read == wanted]

    def scheduled(self, update: int, updates: int) -> dict[str, float]:
        """The numbers that schedules have in update 0 .. updates - 1: {"weight/mlm": 0.5, "temperature/soft_targets": 2.0}."""
        return {
            f"{setting}/{name}": schedule.value(update, updates)
            for name, term in zip(self._names, self.terms, strict=True)
            for setting, schedule in schedules(term).items()
        }

    @property
    def weights(self) -> list[float]:
        """The terms' weights, in the order of `names`."""
        return [term.weight for term in self.on_logits + self.on_hidden]

    def selected(self, batch: Batch) -> Tensor:
        """[B, S] bool: positions whose logits some term looks at."""
        looks = [_looks_at(term, batch) for term in self.on_logits]
        return torch.stack(looks).any(0) if looks else torch.zeros_like(batch.real)

    def counts(self, batch: Batch) -> Tensor:
        """[K] float64: tokens each term looks at, in the order of `names`."""
        return torch.stack([_looks_at(term, batch).sum().double() for term in self.on_logits + self.on_hidden])

    def __call__(
        self, student: ModelOutputs, teacher: ModelOutputs | Ensemble | None, batch: Batch, divisors: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(loss share [] fp32 with gradient, sums [K] float64). divisors [K]: each term's global token count; 0 counts as 1."""
        teachers = teacher if isinstance(teacher, Ensemble) else Ensemble({} if teacher is None else {0: teacher})
        divisors = divisors.clamp(min=1)
        loss = student.last_hidden.new_zeros((), dtype=torch.float32)
        sums = []
        if self.on_logits:
            at = self.selected(batch)
            scales = torch.stack(
                [
                    _looks_at(term, batch)[at].float() * (term.weight / divisor)
                    for term, divisor in zip(self.on_logits, divisors.tolist(), strict=False)
                ]
            )
            heads = {number: (one.transformed, one.decoder) for number, one in teachers.outputs.items()}
            wanted = [_wanted(term, len(teachers.weights)) for term in self.on_logits]
            share, logit_sums = chunked_terms(
                (student.transformed, student.decoder),
                TeacherHeads(heads, teachers.weights),
                batch.labels[at],
                self.on_logits,
                wanted,
                scales,
                self.chunk_tokens,
            )
            loss = loss + share
            sums.append(logit_sums)
        for term, divisor in zip(self.on_hidden, divisors[len(self.on_logits) :].tolist(), strict=True):
            at = _looks_at(term, batch)
            one = teachers.outputs.get(term.teacher or 0) if term.asks else None
            view = TokenView(
                Side(last_hidden=student.last_hidden[at]),
                Side(last_hidden=None if one is None else one.last_hidden[at]),
                batch.labels[at],
            )
            total = term(view).sum()
            loss = loss + total * (term.weight / divisor)
            sums.append(total.detach().double().reshape(1))
        return loss, torch.cat(sums)


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


def _looks_at(term: Term, batch: Batch) -> Tensor:
    return batch.predicted if term.positions == "masked" else batch.real
