"""The open shards of one split: opened at first use; the least recently used is closed first.

A shard that is missing, cut short or altered stops the reader. On request it is skipped, and its rows are empty. A shard that cannot be
reached (no server, a disk that is not mounted) always stops the reader, because the shard itself may be whole.
"""

import os
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import DamagedFile, DataError
from data_shards.storage.location import Location
from data_shards.storage.manifest import Manifest
from data_shards.storage.shard import Shard


class OpenShards:
    """At most `capacity` open shards; each is verified when it is opened for the first time, and again when its file has changed.

    Safe to use from several threads.
    """

    def __init__(
        self,
        location: Location,
        manifest: Manifest,
        split: str,
        capacity: int = 64,
        verify: bool = True,
        on_corrupt: Literal["stop", "skip"] = "stop",
    ) -> None:
        self.location = location
        self.manifest = manifest
        self.split = split
        self.entries = manifest.entries(split)
        if not self.entries:
            raise DataError(
                f"{location.root}: expected a {split} split with documents, got none; build with "
                + ("more text" if split == "train" else "a larger heldout share")
            )
        self._capacity = capacity
        self._verify = verify
        self._skip = on_corrupt == "skip"
        self._verified: dict[int, tuple[int, ...]] = {}
        self._faults: dict[int, str] = {}
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()

    def shard(self, index: int) -> Shard:
        """The shard at `index` of the split. Raises DamagedFile when it is not the promised one, DataError when it cannot be reached."""
        with self._lock:
            shard = self._open.pop(index, None)
            if shard is None:
                state = self._file_state(index)
                verify = self._verify and self._verified.get(index) != state
                shard = Shard.open(self.location, self.entries[index], verify=verify, dtype=self.manifest.dtype)
                self._verified[index] = state
            self._open[index] = shard
            while len(self._open) > self._capacity:
                self._open.popitem(last=False)
            return shard

    def shard_or_fault(self, index: int) -> Shard | str:
        """The shard; if damaged shards are skipped, the error line of a damaged one, also if it is repaired later."""
        if index in self._faults:
            return self._faults[index]
        try:
            return self.shard(index)
        except DamagedFile as fault:
            if not self._skip:
                raise
            self._faults[index] = str(fault)
            return str(fault)

    def fill_rows(
        self, numbers: NDArray[np.int64], fill: Callable[[int, NDArray[np.int64], Shard], None]
    ) -> tuple[NDArray[np.bool_], dict[str, str]]:
        """Call fill(number, rows, shard) for each shard among `numbers` [B], with the rows that it holds.

        Returns the rows of skipped shards, bool [B], and the name of each skipped shard -> the reason.
        """
        skipped, reasons = np.zeros(len(numbers), np.bool_), {}
        for number in np.unique(numbers):
            rows = np.flatnonzero(numbers == number)
            shard = self.shard_or_fault(int(number))
            if isinstance(shard, str):
                skipped[rows] = True
                reasons[self.entries[number].name] = shard
            else:
                fill(int(number), rows, shard)
        return skipped, reasons

    def _file_state(self, index: int) -> tuple[int, ...]:
        """Numbers that change when the file is replaced or written to; () for a remote shard, whose copy is checked after the download."""
        if self.location.is_remote:
            return ()
        try:
            status = os.stat(self.location.where(self.entries[index].name))
        except OSError:
            return ()
        return status.st_ino, status.st_size, status.st_mtime_ns
