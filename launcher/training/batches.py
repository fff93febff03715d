"""The only door from numpy to torch: the stream's micro-batches of one rank, fetched ahead by threads, always in order.

The stream is a pure function of its position, so any number of threads gives the same batches; they only hide reading and masking.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from data_shards.corpus import Corpus
from data_shards.stream.stream import Stream, StreamBatch
from kd.batch import Batch
from kd.distributed import process_group
from kd.training.settings import TrainSettings
from launcher.config.run_config import RunConfig


def to_batch(rows: StreamBatch, update: int) -> Batch:
    """One micro-batch as tensors: ids, labels, positions and segments [B, S] int64."""
    wide = {name: torch.from_numpy(getattr(rows, name).astype(np.int64)) for name in ("input_ids", "labels", "positions", "segments")}
    return Batch(**wide, windows=torch.from_numpy(rows.windows.astype(np.int64)), update=update, first_slot=rows.first_slot)


class BatchLoader:
    """This rank's share of one update after the other, from a given update on."""

    def __init__(
        self,
        stream: Any,
        train: TrainSettings,
        *,
        rank: int,
        world: int,
        update: int,
        windows: int,
        to_batch: Callable[[Any, int], Batch] = to_batch,
    ) -> None:
        """stream: a Stream, or what has its method batch. to_batch: makes tensors of its rows.

        update, windows: how many updates are done, and how many windows of the stream they consumed.
        """
        self.stream, self._to_batch = stream, to_batch
        self.train = train
        self.rank, self.world = rank, world
        self.windows = windows
        """Consumed so far: the cursor. Counts what `next_update` handed out, never what was fetched ahead."""
        self.waited_seconds = 0.0
        self.missing: dict[str, str] = {}
        """Shards that were passed over in what `next_update` handed out -> why."""
        self._next = (update, windows)
        self._threads = ThreadPoolExecutor(max(1, train.loader_workers), thread_name_prefix="loader") if train.loader_workers else None
        self._ahead: deque[Future[tuple[list[Batch], dict[str, str]]]] = deque()

    def next_update(self) -> list[Batch]:
        """The next update's micro-batches of this rank."""
        started = time.perf_counter()
        if self._threads is None:
            batches, missing = self._fetch(*self._advance())
        else:
            while len(self._ahead) < self.train.prefetch_updates:
                self._ahead.append(self._threads.submit(self._fetch, *self._advance()))
            batches, missing = self._ahead.popleft().result()
        self.missing |= missing
        self.waited_seconds += time.perf_counter() - started
        self.windows += self.train.global_batch
        return batches

    def close(self) -> None:
        """Drop what was fetched ahead and end the threads."""
        if self._threads is not None:
            self._threads.shutdown(wait=True, cancel_futures=True)

    def _advance(self) -> tuple[int, int]:
        update, windows = self._next
        self._next = (update + 1, windows + self.train.global_batch)
        return update, windows

    def _fetch(self, update: int, windows: int) -> tuple[list[Batch], dict[str, str]]:
        size = self.train.micro_batch
        rows = [self.stream.batch(windows, self.rank, self.world, size, index) for index in range(self.train.micro_batches(self.world))]
        missing = {name: why for part in rows for name, why in part.missing.items()}
        batches = [self._to_batch(part, update) for part in rows]
        if process_group.device().type == "cuda":  # which also gives this thread the rank's GPU
            batches = [batch.pinned() for batch in batches]
        return batches, missing


def largest_batches(stream: Stream, train: TrainSettings, window: int) -> list[Batch]:
    """An update's micro-batches of this rank at the full length of a window. Shorter rows are repeated."""
    rank, world = process_group.rank(), process_group.world_size()
    rows = [stream.batch(0, rank, world, train.micro_batch, index) for index in range(train.micro_batches(world))]
    return [widened(to_batch(part, update=0), window) for part in rows]


def widened(batch: Batch, window: int) -> Batch:
    """The batch itself where its rows are full and `window` long; else each row's tokens over and over up to that length."""
    if batch.input_ids.shape[1] >= window and bool(batch.real.all()):
        return batch
    index = torch.arange(window) % batch.real.sum(1, keepdim=True).clamp(min=1)
    positions = torch.arange(window).expand(len(index), window).contiguous()
    ids, labels = batch.input_ids.gather(1, index), batch.labels.gather(1, index)
    return replace(batch, input_ids=ids, labels=labels, positions=positions, segments=torch.ones_like(ids))


def sample_batches(stream: Stream, tokens: int) -> list[Batch]:
    """The windows that a stream begins with, in whole global batches: at least `tokens` positions, or an epoch. The same on every rank."""
    batches: list[Batch] = []
    for start in range(0, stream.windows_per_epoch, stream.global_batch):
        if sum(int(batch.real.sum()) for batch in batches) >= tokens:
            break
        batches.append(to_batch(stream.batch(start, 0, 1, stream.global_batch, 0), update=0))
    return batches


def heldout_batches(stream: Stream, batch: int, windows: int | None, *, rank: int = 0, world: int = 1) -> Iterator[Batch]:
    """Held-out windows in their natural order, masked as at visit 0: every world-th batch, about `windows` of them over all ranks."""
    limit = None if windows is None else max(1, windows // (batch * world))
    for number, rows in enumerate(stream.sequential(batch, rank, world)):
        if limit is not None and number >= limit:
            return
        yield to_batch(rows, update=0)


def sample_of_corpus(config: RunConfig, corpus: Corpus, rows: int, tokens: int) -> list[Batch]:
    """The first windows of the training stream, `rows` at a time. The same for any number of ranks."""
    return sample_batches(Stream(corpus, "train", config.data.stream, rows), tokens)
