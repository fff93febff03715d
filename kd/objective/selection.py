"""The positions that the terms read in one micro-batch. Each mask, and its list of positions, is computed once.

A list of positions needs the number of set bits, which makes a GPU wait; so masks are turned into positions once per micro-batch.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from kd.batch import Batch
from kd.terms import pooling
from kd.terms.base import AttentionTerm, DocumentTerm, LogitTerm, TermSettings, TokenTerm

Indices = tuple[Tensor, ...]
"""Rows and columns of positions in [B, S], or numbers of documents in [M]."""


class Selection:
    """The masks of a micro-batch's terms. logits: the positions [N] at which some term needs logits."""

    def __init__(self, batch: Batch, on_logits: Sequence[LogitTerm]) -> None:
        self.batch = batch
        self._masks: dict[object, Tensor] = {}
        self._indices: dict[object, Indices] = {}
        masks = [self.mask(term) for term in on_logits]
        self.logits_mask = torch.stack(masks).any(0) if masks else torch.zeros_like(batch.real)
        """[B, S] bool."""
        self.logits: Indices = self.logits_mask.nonzero(as_tuple=True)

    def mask(self, term: TermSettings) -> Tensor:
        """[B, S] bool of positions, or [M] bool of documents, that the term looks at."""
        key = _key(term)
        if key not in self._masks:
            self._masks[key] = _mask(term, self.batch)
        return self._masks[key]

    @property
    def labels(self) -> Tensor:
        """[N] int64 of the positions in `logits`."""
        return self.batch.labels[self.logits]

    def at_logits(self, term: LogitTerm) -> Tensor:
        """[N] bool: which of the positions in `logits` the term looks at."""
        return self.mask(term)[self.logits]

    def rows(self, logits: Tensor, teacher: int | None = None) -> Tensor:
        """The logits [N, V] of a task's head, one row for each number of a term. teacher: its number; None: the student."""
        raise NotImplementedError("a masked-language model has no task head")

    def batch_of(self, teacher: int) -> Batch:
        """The batch as teacher `teacher` reads it."""
        return self.batch

    def indices(self, term: TermSettings) -> Indices:
        """The set positions of `mask`."""
        key = _key(term)
        if key not in self._indices:
            self._indices[key] = self.mask(term).nonzero(as_tuple=True)
        return self._indices[key]


def _key(term: TermSettings) -> object:
    """Equal for terms that look at the same places."""
    if isinstance(term, DocumentTerm):
        return term.group_rows, term.partners
    assert isinstance(term, LogitTerm | TokenTerm | AttentionTerm)
    return term.positions


def _mask(term: TermSettings, batch: Batch) -> Tensor:
    if isinstance(term, DocumentTerm):
        return pooling.with_partners(pooling.groups(batch.segments, term.group_rows), term.partners)
    assert isinstance(term, LogitTerm | TokenTerm | AttentionTerm)
    if term.positions == "first":
        return pooling.first_tokens(batch.segments)
    return batch.predicted if term.positions == "masked" else batch.real
