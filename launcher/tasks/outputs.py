"""Outputs of a task model on every row of a split, as one flat tensor. Ranks share the work, and padding does not change a value."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_shards.tasks.encoding.batches import sequential
from data_shards.tasks.encoding.encoded import EncodedTask
from kd.distributed import process_group
from kd.tasks.batch import TaskBatch
from kd.tasks.model import TaskEncoder
from kd.tasks.selection import TaskSelection
from kd.terms.logits import TaskLoss
from kd.terms.views import LogitView
from launcher.tasks.stream import tensors

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Outputs:
    """The outputs of a model on a split.

    logits: the form depends on the task's kind.
      classification, multi_label: [R, C].
      regression: [R, 1].
      tagging: rows of words [words of the row, C], by row.
      question_answering: start and end [2, tokens of the row], by row.
    loss: mean over labelled rows, or NaN.
    """

    logits: list[Logits]
    loss: float


@dataclass(frozen=True)
class FlatOutputs:
    """Outputs in one tensor.

    values: [N, C] fp32 on the CPU, the logits of all rows one after the other, as `begins_of` says.
    loss: as in Outputs.
    """

    values: Tensor
    loss: float

    def by_row(self, task: EncodedTask) -> Outputs:
        """The logits of each row."""
        values = self.values.numpy()
        if task.kind not in ("tagging", "question_answering"):
            return Outputs(list(values), self.loss)
        begins = begins_of(task)
        parts = [values[begin:end] for begin, end in pairwise(begins)]
        return Outputs([part.T for part in parts] if task.kind == "question_answering" else parts, self.loss)


def begins_of(task: EncodedTask) -> NDArray[np.int64]:
    """Row r has the outputs begins[r] : begins[r + 1]: one, or one a word (tagging) or token (question answering). int64 [R + 1]."""
    if task.kind == "question_answering":
        return task.offsets
    if task.kind == "tagging":
        assert task.words is not None
        return np.concatenate([[0], np.cumsum(task.words >= 0)]).astype(np.int64)[task.offsets]
    return np.arange(len(task) + 1)


def flat_outputs(
    encoder: TaskEncoder,
    task: EncodedTask,
    batch: int,
    before_batch: Callable[[], None] = lambda: None,
    progress: Callable[[int], None] = lambda tokens: None,
) -> FlatOutputs:
    """A model's outputs on every row, in eval mode, without dropout. Collective: each rank computes every world-th batch.

    Rows of like length share a batch. progress: called with the tokens of each batch of this rank.
    """
    device = next(encoder.parameters()).device
    rank, world = process_group.rank(), process_group.world_size()
    begins = begins_of(task)
    values: Tensor | None = None
    sums = torch.zeros(2, dtype=torch.float64)
    with torch.no_grad(), encoder.evaluating():
        for rows in sequential(task, batch, rank, world):
            before_batch()
            made = tensors(rows, task.kind).to(device)
            logits = encoder(made).logits
            assert logits is not None
            if task.labels is not None:
                selection = TaskSelection(made, [])
                known = selection.at_logits(TaskLoss())
                losses = TaskLoss()(LogitView(selection.rows(logits), None, selection.labels))
                sums += torch.stack([losses[known].double().sum(), known.sum().double()]).cpu()
            part = _in_order_of_rows(logits, made).float().cpu()
            if values is None:
                values = torch.zeros(int(begins[-1]), part.shape[-1])
            places = [np.arange(begins[row], begins[row + 1]) for row in rows.rows]
            values[torch.from_numpy(np.concatenate(places))] = part
            progress(int(rows.segments.sum()))
    if values is None:
        values = torch.zeros(int(begins[-1]), encoder.hf.config.num_labels)
    if world > 1:  # each value is of one rank, and 0 on the others
        sums = process_group.sum_over_ranks(sums.to(process_group.device())).cpu()
        values = process_group.sum_over_ranks(values.to(process_group.device())).cpu()
    total, count = sums.tolist()
    return FlatOutputs(values, total / count if count else float("nan"))


def _in_order_of_rows(logits: Tensor, batch: TaskBatch) -> Tensor:
    """The logits of a batch -> [n, C]: one for each row, word or token."""
    if batch.kind == "tagging":
        assert batch.words is not None
        return logits[batch.words]
    return logits[batch.real] if batch.kind == "question_answering" else logits
