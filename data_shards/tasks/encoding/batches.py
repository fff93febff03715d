"""Padded micro-batches of encoded rows, as numpy arrays."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from data_shards.tasks.encoding.encoded import IGNORED, EncodedTask

MULTIPLE = 8
"""Rows of a batch are as wide as the longest, rounded up to a multiple of this; GPUs are fastest on such widths."""


@dataclass(frozen=True)
class TaskBatch:
    """B rows of S positions.

    input_ids, token_types: int32 [B, S].
    segments: int32 [B, S]; 1 at tokens and 0 at padding.
    labels: as in EncodedTask, by row; of tagging int32 [B, S], IGNORED at padding. None without labels.
    rows: int64 [B], row numbers of the encoded split.
    examples: int64 [B].
    words: of tagging int32 [B, S], the number of the word at its first token, else -1.
    """

    input_ids: NDArray[np.int32]
    token_types: NDArray[np.int32]
    segments: NDArray[np.int32]
    labels: NDArray[Any] | None
    rows: NDArray[np.int64]
    examples: NDArray[np.int64]
    words: NDArray[np.int32] | None = None


def padded(task: EncodedTask, rows: ArrayLike, multiple: int = MULTIPLE) -> TaskBatch:
    """The rows with these numbers, padded on the right to the longest of them, rounded up to a multiple but not above max_length."""
    numbers = np.asarray(rows, np.int64)
    begins, lengths = task.offsets[numbers], task.lengths[numbers]
    longest = max(1, int(lengths.max()))
    width = max(longest, min(-(-longest // multiple) * multiple, task.max_length))
    columns = np.arange(width)
    real = columns[None] < lengths[:, None]
    at = np.where(real, begins[:, None] + columns[None], 0)
    labels = task.labels
    if labels is not None:
        labels = np.where(real, labels[at], IGNORED).astype(np.int32) if task.kind == "tagging" else labels[numbers]
    return TaskBatch(
        input_ids=np.where(real, task.ids[at], task.pad_id).astype(np.int32),
        token_types=np.where(real, task.token_types[at], 0).astype(np.int32),
        segments=real.astype(np.int32),
        labels=labels,
        rows=numbers,
        examples=task.examples[numbers].astype(np.int64),
        words=None if task.words is None else np.where(real, task.words[at], -1).astype(np.int32),
    )


def sequential(task: EncodedTask, batch: int, rank: int = 0, world: int = 1) -> Iterator[TaskBatch]:
    """Every row once over all ranks, in order of length: every world-th batch. `rows` of a batch say where its results belong."""
    order = np.argsort(task.lengths, kind="stable")
    for start in range(rank * batch, len(order), batch * world):
        yield padded(task, order[start : start + batch])
