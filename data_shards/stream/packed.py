"""Windows: a split as rows of equal length, packed without padding; a pure function of the shards and the length.

Per shard the content is doc1 [SEP] [CLS] doc2 [SEP] [CLS] doc3 …; window j is [CLS] + content[j(L-2) : (j+1)(L-2)] + [SEP], so only
a shard's last window can hold padding, and how many windows there are is known from the manifest alone.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import DataError
from data_shards.storage.location import Location
from data_shards.storage.manifest import Manifest
from data_shards.storage.open_shards import Shelf, offsets
from data_shards.storage.shard import Shard
from data_shards.stream.rows import Rows, emptied, framed

MIN_WINDOW_TOKENS = 4


class Windows:
    """All windows of a split; a window's id is the number of windows before it."""

    def __init__(
        self,
        folder: str | Path | Location,
        split: str,
        window_tokens: int,
        cache_dir: str | Path | None = None,
        verify: bool = True,
        across_documents: bool = False,
        open_shards: int = 64,
        on_corrupt: Literal["stop", "skip"] = "stop",
    ) -> None:
        if window_tokens < MIN_WINDOW_TOKENS:
            raise DataError(f"window_tokens: expected at least {MIN_WINDOW_TOKENS}, got {window_tokens}; raise it")
        location = Location.of(folder, cache_dir)
        self.manifest = Manifest.load(location)
        self.window_tokens = window_tokens
        self._across_documents = across_documents
        self._shelf = Shelf(location, self.manifest, split, open_shards, verify, on_corrupt)
        contents = [entry.tokens + 2 * (entry.documents - 1) for entry in self._shelf.entries]
        self.shard_windows = [-(-content // (window_tokens - 2)) for content in contents]
        self._first = offsets(self.shard_windows)
        self.count = int(self._first[-1])
        self.tokens = sum(contents) + 2 * self.count
        """Positions that are not padding, special tokens included, over all windows."""

    @property
    def padding_share(self) -> float:
        """Padding positions / all positions."""
        return 1.0 - self.tokens / (self.count * self.window_tokens)

    def read(self, ids: NDArray[np.int64]) -> Rows:
        """The windows with these ids, in this order. int64 [B] -> Rows [B, window_tokens]."""
        ids = np.asarray(ids, np.int64)
        content = np.zeros((len(ids), self.window_tokens - 2), np.int32)
        sizes = np.zeros(len(ids), np.int64)
        opens = np.zeros(content.shape, np.bool_)
        shards = np.searchsorted(self._first, ids, side="right") - 1
        lost = np.zeros(len(ids), np.bool_)
        missing: dict[str, str] = {}
        for shard in np.unique(shards):
            rows = np.flatnonzero(shards == shard)
            opened = self._shelf.shard_or_fault(int(shard))
            if isinstance(opened, str):
                lost[rows] = True
                missing[self._shelf.entries[shard].name] = opened
            else:
                self._fill(opened, ids[rows] - self._first[shard], rows, content, sizes, opens)
        manifest = self.manifest
        framing = (manifest.cls_id, manifest.sep_id, manifest.pad_id)
        return emptied(framed(content, sizes, None if self._across_documents else opens, *framing), lost, missing, manifest.pad_id)

    def _fill(
        self,
        shard: Shard,
        numbers: NDArray[np.int64],
        rows: NDArray[np.int64],
        content: NDArray[np.int32],
        sizes: NDArray[np.int64],
        opens: NDArray[np.bool_],
    ) -> None:
        """Content of the shard's windows `numbers` into the rows `rows`."""
        width = content.shape[1]
        places = numbers[:, None] * width + np.arange(width)
        begins = shard.starts[:-1] + 2 * np.arange(len(shard.lengths))  # where each document begins in the content
        document = np.searchsorted(begins, places, side="right") - 1
        within = places - begins[document]
        length = shard.lengths[document].astype(np.int64)
        real = places < shard.entry.tokens + 2 * (shard.entry.documents - 1)
        is_token = real & (within < length)
        ids = shard.tokens(np.where(is_token, shard.starts[document] + within, 0))
        opening = real & (within == length + 1)
        content[rows] = np.where(is_token, ids, np.where(opening, self.manifest.cls_id, self.manifest.sep_id))
        sizes[rows] = real.sum(axis=1)
        opens[rows] = opening
