"""Batches of a task's rows or of a corpus' documents for a session, and its outputs at real tokens."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from data_shards.tasks.encoding.batches import padded
from data_shards.tasks.encoding.encoded import EncodedTask
from kd.batch import Batch
from kd.export.runtime import AnySession
from launcher.tasks.stream import tensors


def task_batches(task: EncodedTask, rows: int, batch: int, among: NDArray[np.int64] | None = None) -> Iterator[Batch]:
    """At most `rows` rows of a split, of evenly spaced lengths, in order of length. among: the rows to take them from."""
    order = np.argsort(task.lengths, kind="stable")
    order = order if among is None else order[np.isin(order, among)]
    chosen = order[np.unique(np.linspace(0, len(order) - 1, min(rows, len(order))).astype(np.int64))]
    for start in range(0, len(chosen), batch):
        yield tensors(padded(task, chosen[start : start + batch]), task.kind)


def inputs_of(session: AnySession, batch: Batch) -> list[NDArray[np.int64]]:
    """A batch of single documents as arrays [B, S], in the order of the session's inputs."""
    types = torch.zeros_like(batch.input_ids) if batch.token_types is None else batch.token_types
    values: dict[str, Tensor] = {"input_ids": batch.input_ids, "attention_mask": batch.real.long(), "token_type_ids": types}
    return [values[name].contiguous().numpy() for name in session.inputs]


def run_batch(session: AnySession, batch: Batch) -> list[Any]:
    """The outputs of a session on a batch of single documents."""
    return list(session.run(inputs_of(session, batch)))


def real_outputs(session: AnySession, batch: Batch) -> NDArray[np.float32]:
    """All outputs in one flat array, without those at padding."""
    real = batch.real.numpy()
    made = run_batch(session, batch)
    return np.concatenate([(value[real] if value.shape[:2] == real.shape else value).ravel() for value in made])
