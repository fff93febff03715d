"""The shards of one split, opened when they are first needed, the longest unused closed again.

A shard that is missing, cut short or altered stops the reader, or, on request, is passed over: its rows are then empty. What cannot be
reached (a server that is away, a disk that is not mounted) always stops the reader: it says nothing about the shard.
"""

import os
import threading
from collections import OrderedDict
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import DamagedFile, DataError
from data_shards.storage.location import Location
from data_shards.storage.manifest import Manifest
from data_shards.storage.shard import Shard


class Shelf:
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
            found = self._open.pop(index, None)
            if found is None:
                stamp = self._stamp(index)
                verify = self._verify and self._verified.get(index) != stamp
                found = Shard.open(self.location, self.entries[index], verify=verify, dtype=self.manifest.dtype)
                self._verified[index] = stamp
            self._open[index] = found
            while len(self._open) > self._capacity:
                self._open.popitem(last=False)
            return found

    def shard_or_fault(self, index: int) -> Shard | str:
        """The shard or, where damaged shards are to be skipped, the line that says what is wrong with it: the same from then on."""
        if index in self._faults:
            return self._faults[index]
        try:
            return self.shard(index)
        except DamagedFile as fault:
            if not self._skip:
                raise
            self._faults[index] = str(fault)
            return str(fault)

    def _stamp(self, index: int) -> tuple[int, ...]:
        """What changes when a shard's file is replaced or written to. A remote one's copy is checked when it is made."""
        if self.location.is_remote:
            return ()
        try:
            facts = os.stat(self.location.where(self.entries[index].name))
        except OSError:
            return ()
        return facts.st_ino, facts.st_size, facts.st_mtime_ns


def offsets(counts: list[int]) -> NDArray[np.int64]:
    """Where each part of a concatenation begins, and after the last one its length. int64 [parts + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(counts, np.int64), dtype=np.int64)])
