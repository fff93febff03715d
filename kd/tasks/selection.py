"""The logits of a task's head as rows for the terms: one row [V] for each number that a term returns.

| task               | rows N                     | V                                         |
| classification     | B, one an example          | the classes                               |
| multi_label        | B x C, one a label         | 2: no, yes. The logits are 0 and z        |
| regression         | B                          | 1: the number itself                      |
| tagging            | the words of the batch     | the tags                                  |
| question_answering | 2 B: starts, then ends     | the S positions; padding is out of reach  |

So softmax(logits / T) is the task's distribution everywhere, and no term has code for one kind of task. For a label of a multi-label task,
softmax([0, z] / T) is the sigmoid of z / T.
"""

from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor

from kd.batch import IGNORED, Batch
from kd.copies import moved
from kd.objective.head_rows import HeadRows, RowList
from kd.objective.selection import Selection
from kd.tasks.batch import TaskBatch
from kd.terms.base import LogitTerm, TermSettings
from kd.terms.logits import OUT_OF_REACH


class TaskSelection(Selection):
    """The rows of a task's micro-batch. `logits` selects no position: the head gives its logits itself."""

    def __init__(self, batch: Batch, on_logits: Sequence[LogitTerm], device: torch.device | None = None) -> None:
        assert isinstance(batch, TaskBatch)
        host = _labels(batch.on_host)
        known = ~host.isnan() if host.is_floating_point() else host != IGNORED
        self._known = {"all": torch.ones_like(known), "masked": known}
        super().__init__(batch, [], device)
        self._host_labels = host

    @property
    def task(self) -> TaskBatch:
        """The batch, on the device."""
        assert isinstance(self.batch, TaskBatch)
        return self.batch

    @cached_property
    def labels(self) -> Tensor:
        """[N] int64, IGNORED where there is none; [N] fp32, NaN where there is none, for regression."""
        return moved(self._host_labels, self.device)

    def mask(self, term: TermSettings) -> Tensor:
        """[N] bool for a term on logits (positions: masked are the rows with a label); else as Selection. On the host."""
        return self._known[term.positions] if isinstance(term, LogitTerm) else super().mask(term)

    def at_logits(self, term: LogitTerm) -> Tensor:
        """[N] bool, on the device."""
        if term.positions not in self._at_logits:
            self._at_logits[term.positions] = moved(self.mask(term), self.device)
        return self._at_logits[term.positions]

    def head_rows(self, terms: Sequence[LogitTerm]) -> HeadRows:
        """None: the logits of a task's head are not computed in chunks."""
        return HeadRows([], RowList(torch.zeros(0, dtype=torch.bool), self.device))

    def prepare(self, terms: Sequence[TermSettings]) -> None:
        """See Selection."""
        super().prepare(terms)
        self.labels  # noqa: B018
        for batch in (self.task, *self.task.readings.values()):
            if batch.kind == "tagging":
                batch.word_positions  # noqa: B018

    def rows(self, logits: Tensor, teacher: int | None = None) -> Tensor:
        """The output of the head -> [N, V]."""
        return rows_of(self.task if teacher is None else self.batch_of(teacher), logits)

    def batch_of(self, teacher: int) -> TaskBatch:
        """The rows as teacher `teacher` reads them."""
        return self.task.readings.get(teacher, self.task)


def rows_of(batch: TaskBatch, logits: Tensor) -> Tensor:
    """The logits of a head -> [N, V] fp32. From [B, C]; tagging [B, S, C]; question answering [B, S, 2]."""
    logits = logits.float()
    if batch.kind == "multi_label":
        flat = logits.flatten()
        return torch.stack([torch.zeros_like(flat), flat], dim=-1)
    if batch.kind == "tagging":
        return logits[batch.word_positions]
    if batch.kind == "question_answering":
        return torch.cat([logits[..., 0], logits[..., 1]]).masked_fill(~batch.real.repeat(2, 1), OUT_OF_REACH)
    return logits


def _labels(batch: TaskBatch) -> Tensor:
    """The labels [N] of a batch on the host."""
    if batch.kind == "tagging":
        return batch.targets[batch.word_positions]
    return batch.targets.T.flatten() if batch.kind == "question_answering" else batch.targets.flatten()
