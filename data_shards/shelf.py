"""The shards of one split, opened when they are first needed, the longest unused closed again."""

import threading
from collections import OrderedDict

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import DataError
from data_shards.location import Location
from data_shards.manifest import Manifest
from data_shards.shard import Shard


class Shelf:
    """At most `capacity` open shards; each is verified when it is opened for the first time. Safe to use from several threads."""

    def __init__(self, location: Location, manifest: Manifest, split: str, capacity: int = 64, verify: bool = True) -> None:
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
        self._verified: set[int] = set()
        self._open: OrderedDict[int, Shard] = OrderedDict()
        self._lock = threading.Lock()

    def shard(self, index: int) -> Shard:
        """The shard at `index` of the split."""
        with self._lock:
            found = self._open.pop(index, None)
            if found is None:
                verify = self._verify and index not in self._verified
                found = Shard.open(self.location, self.entries[index], verify=verify, dtype=self.manifest.dtype)
                self._verified.add(index)
            self._open[index] = found
            while len(self._open) > self._capacity:
                self._open.popitem(last=False)
            return found


def offsets(counts: list[int]) -> NDArray[np.int64]:
    """Where each part of a concatenation begins, and after the last one its length. int64 [parts + 1]."""
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(np.asarray(counts, np.int64), dtype=np.int64)])
