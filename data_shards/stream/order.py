"""The order of the windows of an epoch: pure arithmetic that knows neither ranks nor files.

An epoch permutes the shards and the windows within each shard. It cuts their concatenation into `lanes` contiguous ranges of equal size.
Index p of the epoch is entry p // lanes of lane p % lanes. So a rank that owns some of the lanes reads few shards.
"""

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from data_shards.stream.counter_hash import permutation

SHARDS, WINDOWS = 0, 1  # the use of a permutation: part of its key


def offsets(counts: list[int]) -> NDArray[np.int64]:
    """The beginning of each part of a concatenation, and last the total. int64 [parts + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(counts, np.int64), dtype=np.int64)])


class Order:
    """Stream indices 0, 1, 2, … over endless epochs -> windows. Safe to use from several threads."""

    def __init__(self, shard_windows: list[int], lanes: int, seed: int) -> None:
        self.windows = sum(shard_windows)
        self._counts = np.asarray(shard_windows, np.int64)
        self._first = offsets(shard_windows)
        self._lanes = lanes
        self._seed = seed
        self._permutations: OrderedDict[tuple[int, ...], NDArray[np.int64]] = OrderedDict()
        self._lock = threading.Lock()

    def locate(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stream indices [G] -> (window ids [G], visits [G]), int64; the visit is the epoch."""
        visits, entries = np.divmod(np.asarray(indices, np.int64), self.windows)
        windows = np.empty_like(entries)
        for epoch in np.unique(visits):
            chosen = visits == epoch
            windows[chosen] = self._epoch(int(epoch), entries[chosen])
        return windows, visits

    def _epoch(self, epoch: int, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        share, longer = divmod(self.windows, self._lanes)
        entry, lane = np.divmod(indices, self._lanes)
        entry = entry + lane * share + np.minimum(lane, longer)
        shards = self._permutation(len(self._counts), SHARDS, epoch)
        begins = offsets(list(self._counts[shards]))
        turn = np.searchsorted(begins, entry, side="right") - 1
        windows = np.empty_like(entry)
        for number in np.unique(turn):
            chosen, shard = turn == number, int(shards[number])
            within = self._permutation(int(self._counts[shard]), WINDOWS, epoch, shard)
            windows[chosen] = self._first[shard] + within[entry[chosen] - begins[number]]
        return windows

    def _permutation(self, length: int, *key: int) -> NDArray[np.int64]:
        with self._lock:
            order = self._permutations.pop(key, None)
            if order is None:
                order = permutation(length, self._seed, *key).astype(np.uint32)
            self._permutations[key] = order
            while len(self._permutations) > 2 * self._lanes + 2:
                self._permutations.popitem(last=False)
            return order
