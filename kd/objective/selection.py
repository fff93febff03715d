"""The positions that the terms read in one micro-batch. Each mask, and its list of positions, is computed once, on the host.

A batch comes from the host, so all counts are known there. A GPU would have to finish its work before it could tell one.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from kd.batch import Batch
from kd.copies import Indices, moved, positions_of
from kd.models.attention import document_layout
from kd.objective.head_rows import HeadRows, RowList
from kd.terms import pooling
from kd.terms.base import AttentionTerm, DocumentTerm, LogitTerm, TermSettings, TokenTerm
from kd.terms.pooling import Documents


class Selection:
    """The masks of a micro-batch's terms, on the host, and their positions, on a device. `prepare` copies all of it to the device."""

    def __init__(self, batch: Batch, on_logits: Sequence[LogitTerm], device: torch.device | None = None) -> None:
        """device: None: the batch's."""
        self.host, self.device = batch.on_host, batch.device if device is None else device
        self._batch = batch
        self._masks: dict[object, Tensor] = {}
        self._indices: dict[object, Indices] = {}
        self._groups: dict[int | None, tuple[Tensor, tuple[Tensor, ...]]] = {}
        self._documents: Documents | None = None
        self._at_logits: dict[object, Tensor] = {}
        self._row_lists: dict[object, RowList] = {}
        self._labelled: RowList | None = None
        masks = [self.mask(term) for term in on_logits]
        self.logits_mask = torch.stack(masks).any(0) if masks else torch.zeros_like(self.host.real)
        """[B, S] bool, on the host."""
        self._logits = self.logits_mask.nonzero(as_tuple=True)

    @cached_property
    def batch(self) -> Batch:
        """The batch, on the device."""
        batch = self._batch if self._batch.device == self.device else self.host.to(self.device)
        if batch is not self.host:
            document_layout.remember(batch.segments, self.host.segments)
        return batch

    @cached_property
    def logits(self) -> Indices:
        """The positions [N] at which some term needs logits, on the device."""
        return tuple(moved(index, self.device) for index in self._logits)

    def mask(self, term: TermSettings) -> Tensor:
        """[B, S] bool of positions, or [M] bool of documents, that the term looks at; on the host."""
        key = _key(term)
        if key not in self._masks:
            self._masks[key] = self._mask(term)
        return self._masks[key]

    def count(self, term: TermSettings) -> int:
        """The number of positions or documents that the term looks at."""
        return int(self.mask(term).sum())

    @property
    def seen(self) -> Tensor:
        """[2] float64 on the host: tokens, and predicted tokens."""
        return torch.stack([self.host.real.sum(), self.host.predicted.sum()]).double()

    @property
    def labels(self) -> Tensor:
        """[N] int64 of the positions in `logits`."""
        return self.batch.labels[self.logits]

    def at_logits(self, term: LogitTerm) -> Tensor:
        """[N] bool: which of the positions in `logits` the term looks at; on the device."""
        key = _key(term)
        if key not in self._at_logits:
            self._at_logits[key] = moved(self.mask(term)[self._logits], self.device)
        return self._at_logits[key]

    def head_rows(self, terms: Sequence[LogitTerm]) -> HeadRows:
        """The rows of the vocabulary head, which are the positions in `logits`, that the terms read."""
        if self._labelled is None:
            self._labelled = RowList(self.host.labels[self._logits] >= 0, self.device)
        for term in terms:
            if _key(term) not in self._row_lists:
                self._row_lists[_key(term)] = RowList(self.mask(term)[self._logits], self.device)
        return HeadRows([self._row_lists[_key(term)] for term in terms], self._labelled)

    def rows(self, logits: Tensor, teacher: int | None = None) -> Tensor:
        """The logits [N, V] of a task's head, one row for each number of a term. teacher: its number; None: the student."""
        raise NotImplementedError("a masked-language model has no task head")

    def batch_of(self, teacher: int) -> Batch:
        """The batch as teacher `teacher` reads it."""
        return self.batch

    def indices(self, term: TermSettings) -> Indices:
        """The set positions of `mask`, on the device."""
        key = _key(term)
        if key not in self._indices:
            self._indices[key] = positions_of(self.mask(term), self.device)
        return self._indices[key]

    @property
    def documents(self) -> Documents:
        """The documents of the batch, on the device."""
        if self._documents is None:
            self._documents = pooling.documents_of(self.host.segments, self.device)
        return self._documents

    def groups(self, term: DocumentTerm) -> tuple[Tensor, tuple[Tensor, ...]]:
        """(group [M] of each document, the documents of each group), on the device."""
        if term.group_rows not in self._groups:
            group = pooling.groups(self.host.segments, term.group_rows)
            members = tuple(moved(numbers, self.device) for numbers in pooling.members_of(group))
            self._groups[term.group_rows] = moved(group, self.device), members
        return self._groups[term.group_rows]

    def prepare(self, terms: Sequence[TermSettings]) -> None:
        """Compute and move all that these terms ask for, so that nothing is copied to the device within the micro-batch."""
        self.batch, self.logits  # noqa: B018
        for term in terms:
            if isinstance(term, LogitTerm):
                self.at_logits(term)
                self.head_rows([term])
            else:
                self.indices(term)
            if isinstance(term, DocumentTerm):
                self.documents  # noqa: B018
                self.groups(term)

    def _mask(self, term: TermSettings) -> Tensor:
        if isinstance(term, DocumentTerm):
            return pooling.with_partners(pooling.groups(self.host.segments, term.group_rows), term.partners)
        assert isinstance(term, LogitTerm | TokenTerm | AttentionTerm)
        if term.positions == "first":
            return pooling.first_tokens(self.host.segments)
        return self.host.predicted if term.positions == "masked" else self.host.real


def _key(term: TermSettings) -> object:
    """Equal for terms that look at the same places."""
    if isinstance(term, DocumentTerm):
        return term.group_rows, term.partners
    assert isinstance(term, LogitTerm | TokenTerm | AttentionTerm)
    return term.positions
