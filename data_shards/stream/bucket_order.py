"""The order of bucketed documents: pure arithmetic in which each global batch comes from one bin.

The exception is the end of an epoch, which serves the remaining chunks in mixed batches, sorted by bin.
"""

import threading
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_shards.stream.counter_hash import permutation
from data_shards.stream.order import SHARDS, WINDOWS, offsets

KEPT_EPOCHS = 2


class BucketOrder:
    """Stream indices 0, 1, 2, … over endless epochs -> chunks. The global batch [n * G, (n + 1) * G) comes from one bin.

    An epoch reads the permuted shards and the permuted chunks in each. A batch is served when its bin is full.
    If the epoch before ended inside a batch, the first remaining chunks complete that batch. Safe to use from several threads.
    """

    def __init__(self, widths: NDArray[Any], shard_chunks: list[int], global_batch: int, seed: int) -> None:
        self.windows = len(widths)
        self._widths = widths
        self._shard_chunks = shard_chunks
        self._first = offsets(shard_chunks)
        self._global_batch = global_batch
        self._seed = seed
        self._epochs: dict[int, NDArray[np.int64]] = {}
        self._lock = threading.Lock()

    def locate(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stream indices [G] -> (chunk ids [G], visits [G]), int64; the visit is the epoch."""
        visits, entries = np.divmod(np.asarray(indices, np.int64), self.windows)
        chunks = np.empty_like(entries)
        for epoch in np.unique(visits):
            chosen = visits == epoch
            chunks[chosen] = self._epoch(int(epoch))[entries[chosen]]
        return chunks, visits

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """The chunks of an epoch in the order they are served. int64 [windows]."""
        with self._lock:
            order = self._epochs.pop(epoch, None)
            if order is None:
                order = self._served(epoch)
            self._epochs[epoch] = order  # now the last to be dropped: loader workers ask for earlier epochs after later ones
            while len(self._epochs) > KEPT_EPOCHS:
                del self._epochs[next(iter(self._epochs))]
            return order

    def _served(self, epoch: int) -> NDArray[np.int64]:
        size = self._global_batch
        shards = permutation(len(self._shard_chunks), self._seed, SHARDS, epoch)
        reading = np.concatenate(
            [self._first[shard] + permutation(self._shard_chunks[shard], self._seed, WINDOWS, epoch, int(shard)) for shard in shards]
        )
        by_bin = np.argsort(self._widths[reading], kind="stable")
        _, counts = np.unique(self._widths, return_counts=True)
        within = np.arange(self.windows) - np.repeat(np.cumsum(counts) - counts, counts)
        whole = within < np.repeat(counts // size * size, counts)
        batches = by_bin[whole].reshape(-1, size)
        batches = batches[np.argsort(batches[:, -1])]  # a batch is full when its last chunk is read
        remaining = by_bin[~whole]
        head = -self.windows * epoch % size
        if len(remaining) < head:
            batches, remaining = batches[:-1], np.concatenate([remaining, batches[-1]])
        return reading[np.concatenate([remaining[:head], batches.ravel(), remaining[head:]])]
