"""In which order an epoch serves its windows: pure arithmetic that knows neither ranks nor files.

An epoch permutes the shards, permutes the windows within each shard, and cuts their concatenation into `lanes` contiguous ranges of equal
size; position p of the epoch is entry p // lanes of lane p % lanes. So a rank that owns some of the lanes reads few shards.
"""

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from data_shards.storage.open_shards import offsets
from data_shards.stream.counter_hash import permutation

SHARDS, WINDOWS = 0, 1  # what a permutation is for: part of its key


class Order:
    """Stream positions 0, 1, 2, … over endless epochs -> windows. Safe to use from several threads."""

    def __init__(self, shard_windows: list[int], lanes: int, seed: int) -> None:
        self.windows = sum(shard_windows)
        self._counts = np.asarray(shard_windows, np.int64)
        self._first = offsets(shard_windows)
        self._lanes = lanes
        self._seed = seed
        self._permutations: OrderedDict[tuple[int, ...], NDArray[np.int64]] = OrderedDict()
        self._lock = threading.Lock()

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stream positions [G] -> (window ids [G], visits [G]), int64; the visit is the epoch."""
        visits, places = np.divmod(np.asarray(positions, np.int64), self.windows)
        windows = np.empty_like(places)
        for epoch in np.unique(visits):
            chosen = visits == epoch
            windows[chosen] = self._epoch(int(epoch), places[chosen])
        return windows, visits

    def _epoch(self, epoch: int, places: NDArray[np.int64]) -> NDArray[np.int64]:
        share, longer = divmod(self.windows, self._lanes)
        entry, lane = np.divmod(places, self._lanes)
        entry = entry + lane * share + np.minimum(lane, longer)
        shards = self._permutation(len(self._counts), SHARDS, epoch)
        begins = offsets(list(self._counts[shards]))
        turn = np.searchsorted(begins, entry, side="right") - 1
        windows = np.empty_like(entry)
        for at in np.unique(turn):
            chosen, shard = turn == at, int(shards[at])
            within = self._permutation(int(self._counts[shard]), WINDOWS, epoch, shard)
            windows[chosen] = self._first[shard] + within[entry[chosen] - begins[at]]
        return windows

    def _permutation(self, length: int, *key: int) -> NDArray[np.int64]:
        with self._lock:
            found = self._permutations.pop(key, None)
            if found is None:
                found = permutation(length, self._seed, *key).astype(np.uint32)
            self._permutations[key] = found
            while len(self._permutations) > 2 * self._lanes + 2:
                self._permutations.popitem(last=False)
            return found
