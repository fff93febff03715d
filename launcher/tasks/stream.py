"""A task's rows as a training stream: the same rows in the same update for any number of ranks, and their tensors."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray

from data_shards.errors import DataError
from data_shards.stream.cursor import Cursor
from data_shards.tasks.encoding import batches
from data_shards.tasks.encoding.encoded import EncodedTask
from data_shards.tasks.encoding.order import TaskOrder
from kd.batch import IGNORED
from kd.distributed import process_group
from kd.tasks.batch import TaskBatch, TaskKind
from kd.training.settings import TrainSettings
from stillhouse.digests import canonical_sha256


@dataclass(frozen=True)
class TaskRows:
    """One micro-batch as arrays: the student's reading, and those of teachers with another tokenizer by their number."""

    rows: batches.TaskBatch
    readings: Mapping[int, batches.TaskBatch]
    first_slot: int
    missing: Mapping[str, str] = field(default_factory=dict)


class TaskStream:
    """The training rows as endless batches. The cursor counts rows; "windows" in reports are rows."""

    def __init__(self, task: EncodedTask, seed: int, global_batch: int, readings: Mapping[int, EncodedTask] | None = None) -> None:
        """readings: the same rows as teachers with another tokenizer read them. Raises DataError for fewer rows than a global batch."""
        if len(task) < global_batch:
            raise DataError(
                f"data.train: expected at least one global batch of {global_batch} rows, got {len(task)}; lower train.global_batch"
            )
        self.task, self.readings = task, dict(readings or {})
        self.global_batch = global_batch
        self._order = TaskOrder(task.lengths, seed, global_batch)
        self.fingerprint = canonical_sha256([task.digest(), seed, global_batch], ascii_only=True)

    @property
    def windows_per_epoch(self) -> int:
        """Rows."""
        return len(self.task)

    @property
    def tokens_per_epoch(self) -> int:
        """Tokens that are not padding."""
        return int(self.task.offsets[-1])

    def cursor(self, windows: int = 0) -> Cursor:
        """The cursor of a run that has consumed this number of rows."""
        return Cursor(windows, self.fingerprint)

    def check(self, cursor: Cursor) -> None:
        """Raise DataError for a cursor of other data, another seed or another batch size."""
        if cursor.fingerprint != self.fingerprint:
            raise DataError(
                f"cursor: expected the rows {cursor.fingerprint[:12]}… that the run began with, got {self.fingerprint[:12]}…; "
                "the data or its settings have changed: restore them, or start a new run"
            )

    def slots(self, start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The rows of the update that starts at a position, and the epoch of each: int64 [G] both."""
        rows = self._order.batch(start // self.global_batch)
        return rows, np.full_like(rows, start // max(1, len(self.task)))

    def batch(self, start: int, rank: int, world: int, micro_batch: int, micro_index: int) -> TaskRows:
        """A rank's micro-batch of the update that starts at a position."""
        rows = self._order.micro_batch(start // self.global_batch, rank, world, micro_batch, micro_index)
        readings = {number: batches.padded(task, rows) for number, task in self.readings.items()}
        return TaskRows(batches.padded(self.task, rows), readings, rank + world * micro_batch * micro_index)

    def sample(self, tokens: int, rows: int = 8) -> list[TaskBatch]:
        """The first rows in the order of training, `rows` at a time: at least `tokens` tokens, or an epoch."""
        made: list[TaskBatch] = []
        numbers = self._order.batch(0)
        update = 0
        while sum(int(batch.real.sum()) for batch in made) < tokens and update * self.global_batch < len(self.task):
            numbers = self._order.batch(update)
            made += [tensors(batches.padded(self.task, numbers[at : at + rows]), self.task.kind) for at in range(0, len(numbers), rows)]
            update += 1
        return made


def largest_task_batches(stream: TaskStream, train: TrainSettings, kind: TaskKind) -> list[TaskBatch]:
    """This rank's micro-batches of the update of the first epoch that has the longest row."""
    rank, world = process_group.rank(), process_group.world_size()
    updates = range(-(-len(stream.task) // stream.global_batch))
    longest = max(updates, key=lambda update: int(stream.task.lengths[stream.slots(update * stream.global_batch)[0]].max()))
    start, count = longest * stream.global_batch, train.micro_batches(world)
    return [to_task_batch(stream.batch(start, rank, world, train.micro_batch, index), kind, update=0) for index in range(count)]


def to_task_batch(rows: TaskRows, kind: TaskKind, update: int) -> TaskBatch:
    """One micro-batch as tensors."""
    readings = {number: tensors(reading, kind) for number, reading in rows.readings.items()}
    return replace(tensors(rows.rows, kind), update=update, first_slot=rows.first_slot, readings=readings)


def tensors(rows: batches.TaskBatch, kind: str) -> TaskBatch:
    """Padded arrays as tensors, with targets in the form of kd.tasks.batch.TaskBatch."""

    def wide(values: NDArray[np.int32] | NDArray[np.int64]) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.int64))

    segments = wide(rows.segments)
    count, width = segments.shape
    labels = torch.full((count, width), IGNORED)
    words = None
    if kind == "tagging":
        assert rows.words is not None
        words = torch.from_numpy(rows.words >= 0)
        targets = wide(rows.labels) if rows.labels is not None else labels
        labels = targets
    else:
        targets = _targets(rows.labels, kind, count)
        known = ~targets.isnan() if targets.is_floating_point() else targets != IGNORED
        labels[:, 0] = torch.where(known.reshape(count, -1).any(1), 0, IGNORED)
    return TaskBatch(
        input_ids=wide(rows.input_ids),
        labels=labels,
        positions=torch.arange(width).expand(count, width).contiguous(),
        segments=segments,
        windows=torch.from_numpy(rows.rows),
        token_types=wide(rows.token_types),
        targets=targets,
        kind=kind,  # type: ignore[arg-type]
        words=words,
    )


def _targets(labels: NDArray[np.generic] | None, kind: str, count: int) -> torch.Tensor:
    if kind == "regression":
        return torch.full((count,), float("nan")) if labels is None else torch.from_numpy(labels.astype(np.float32))
    if labels is None:
        return torch.full((count, 2) if kind == "question_answering" else (count,), IGNORED)
    if kind == "multi_label":
        return torch.from_numpy(np.where(np.isnan(labels.astype(np.float32)), IGNORED, labels).astype(np.int64))
    return torch.from_numpy(labels.astype(np.int64))


def joined(labelled: EncodedTask, others: Sequence[EncodedTask]) -> EncodedTask:
    """The rows of several encodings one after the other, where those without labels have IGNORED ones."""
    parts = [labelled, *others]
    if not others:
        return labelled
    assert labelled.labels is not None
    offsets = np.concatenate([[0], np.cumsum(np.concatenate([part.lengths for part in parts]))]).astype(np.int64)
    first = np.cumsum([0, *(int(part.examples[-1]) + 1 if len(part) else 0 for part in parts[:-1])])
    characters = [part.characters for part in parts if part.characters is not None]
    return replace(
        labelled,
        ids=np.concatenate([part.ids for part in parts]),
        token_types=np.concatenate([part.token_types for part in parts]),
        offsets=offsets,
        examples=np.concatenate([part.examples + start for part, start in zip(parts, first, strict=True)]).astype(np.int32),
        labels=np.concatenate([labelled.labels, *(_unlabelled(labelled, part) for part in others)]),
        words=None if labelled.words is None else np.concatenate([part.words for part in parts if part.words is not None]),
        characters=np.concatenate(characters) if characters else None,
    )


def _unlabelled(labelled: EncodedTask, part: EncodedTask) -> NDArray[np.generic]:
    """Labels of the right shape that say nothing, for rows without labels; the rows' own where they have some."""
    if part.labels is not None:
        return part.labels
    assert labelled.labels is not None
    count = len(part.ids) if labelled.kind == "tagging" else len(part)
    fill = np.nan if labelled.labels.dtype.kind == "f" else IGNORED
    return np.full((count, *labelled.labels.shape[1:]), fill, labelled.labels.dtype)
