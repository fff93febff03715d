"""Packed windows: a split as rows of equal length without padding; a pure function of the shards and the length.

Per shard the content is doc1 [SEP] [CLS] doc2 [SEP] [CLS] doc3 …. Window j is [CLS] + content[j(L-2) : (j+1)(L-2)] + [SEP].
So only the last window of a shard can hold padding, and the manifest alone gives the number of windows.
"""

from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from data_shards.corpus import Corpus
from data_shards.errors import DataError
from data_shards.storage.open_shards import OpenShards
from data_shards.storage.shard import Shard
from data_shards.stream.order import offsets
from data_shards.stream.rows import Rows, emptied, framed

MIN_WINDOW_TOKENS = 4


class PackedWindows:
    """All windows of a split. The id of a window is the number of windows before it."""

    def __init__(
        self,
        corpus: str | Path | Corpus,
        split: str,
        window_tokens: int,
        verify: bool = True,
        across_documents: bool = False,
        open_shards: int = 64,
        on_corrupt: Literal["stop", "skip"] = "stop",
    ) -> None:
        if window_tokens < MIN_WINDOW_TOKENS:
            raise DataError(f"window_tokens: expected at least {MIN_WINDOW_TOKENS}, got {window_tokens}; raise it")
        corpus = Corpus.open(corpus)
        self.manifest = corpus.manifest
        self.window_tokens = window_tokens
        self._across_documents = across_documents
        self._shards = OpenShards(corpus.location, self.manifest, split, open_shards, verify, on_corrupt)
        contents = [entry.tokens + 2 * (entry.documents - 1) for entry in self._shards.entries]
        self.shard_windows = [-(-content // (window_tokens - 2)) for content in contents]
        self._first = offsets(self.shard_windows)
        self.count = int(self._first[-1])
        self.tokens = sum(contents) + 2 * self.count
        """Positions that are not padding, special tokens included, over all windows."""

    def read(self, ids: NDArray[np.int64]) -> Rows:
        """The windows with these ids, in this order. int64 [B] -> Rows [B, window_tokens]."""
        ids = np.asarray(ids, np.int64)
        content = np.zeros((len(ids), self.window_tokens - 2), np.int32)
        sizes = np.zeros(len(ids), np.int64)
        opens = np.zeros(content.shape, np.bool_)
        shards = np.searchsorted(self._first, ids, side="right") - 1

        def fill(number: int, rows: NDArray[np.int64], shard: Shard) -> None:
            content[rows], sizes[rows], opens[rows] = self._content(shard, ids[rows] - self._first[number])

        skipped, reasons = self._shards.fill_rows(shards, fill)
        cls_id, sep_id, pad_id = self.manifest.cls_id, self.manifest.sep_id, self.manifest.pad_id
        windows = framed(content, sizes, None if self._across_documents else opens, cls_id, sep_id, pad_id)
        return emptied(windows, skipped, reasons, pad_id)

    def _content(self, shard: Shard, numbers: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.bool_]]:
        """Windows `numbers` [B] of a shard: (content [B, L - 2], its size [B] without padding, marks of its [CLS] ids [B, L - 2])."""
        width = self.window_tokens - 2
        indices = numbers[:, None] * width + np.arange(width)
        begins = shard.starts[:-1] + 2 * np.arange(len(shard.lengths))  # of each document in the content
        document = np.searchsorted(begins, indices, side="right") - 1
        within = indices - begins[document]
        length = shard.lengths[document].astype(np.int64)
        real = indices < shard.entry.tokens + 2 * (shard.entry.documents - 1)
        is_token = real & (within < length)
        ids = shard.tokens(np.where(is_token, shard.starts[document] + within, 0))
        opens = real & (within == length + 1)
        content = np.where(is_token, ids, np.where(opens, self.manifest.cls_id, self.manifest.sep_id)).astype(np.int32)
        return content, real.sum(axis=1), opens
