"""Bucketed documents: one chunk of one document per row, in batches of like length; DistilBERT's alternative to packed windows.

A document is cut into chunks of at most L - 2 tokens, each framed as [CLS] chunk [SEP]. A bin holds the chunks whose row length
rounds up to the same multiple of bin_width. All of it follows from lengths-SPLIT.npy. Memory: about 12 bytes a document and 10 a chunk.
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
from data_shards.stream.packed import MIN_WINDOW_TOKENS
from data_shards.stream.rows import Rows, emptied, framed


class BucketedDocuments:
    """All chunks of a split. The id of a chunk is the number of chunks before it."""

    def __init__(
        self,
        corpus: str | Path | Corpus,
        split: str,
        window_tokens: int,
        verify: bool = True,
        bin_width: int = 32,
        open_shards: int = 64,
        on_corrupt: Literal["stop", "skip"] = "stop",
    ) -> None:
        if window_tokens < MIN_WINDOW_TOKENS:
            raise DataError(f"window_tokens: expected at least {MIN_WINDOW_TOKENS}, got {window_tokens}; raise it")
        corpus = Corpus.open(corpus)
        self.manifest = corpus.manifest
        self.window_tokens = window_tokens
        self._shards = OpenShards(corpus.location, self.manifest, split, open_shards, verify, on_corrupt)
        self._chunk_tokens = window_tokens - 2
        self._lengths = corpus.lengths(split)
        self._first_document = offsets([entry.documents for entry in self._shards.entries])
        chunks = -(-self._lengths.astype(np.int64) // self._chunk_tokens)
        self._first_chunk = np.concatenate([[0], np.cumsum(chunks)])
        self.shard_windows = [int(count) for count in np.diff(self._first_chunk[self._first_document])]
        self.count = int(self._first_chunk[-1])
        self.tokens = int(self._lengths.sum(dtype=np.int64)) + 2 * self.count
        """Positions that are not padding, special tokens included, over all chunks."""
        sizes = np.full(self.count, self._chunk_tokens, np.int64)
        sizes[self._first_chunk[1:] - 1] = self._lengths - (chunks - 1) * self._chunk_tokens
        rounded = -(-(sizes + 2) // bin_width) * bin_width
        self.widths = np.minimum(rounded, window_tokens).astype(np.uint16 if window_tokens < 1 << 16 else np.uint32)
        """Row length of each chunk after rounding, [count]: the number of its bin."""

    def read(self, ids: NDArray[np.int64]) -> Rows:
        """The chunks with these ids, in this order. int64 [B] -> Rows [B, S]; S is the largest bin among them."""
        ids = np.asarray(ids, np.int64)
        documents = np.searchsorted(self._first_chunk, ids, side="right") - 1
        begins = (ids - self._first_chunk[documents]) * self._chunk_tokens
        sizes = np.minimum(self._lengths[documents].astype(np.int64) - begins, self._chunk_tokens)
        content = np.zeros((len(ids), int(self.widths[ids].max()) - 2), np.int32)
        columns = np.arange(content.shape[1])
        shards = np.searchsorted(self._first_document, documents, side="right") - 1

        def fill(number: int, rows: NDArray[np.int64], shard: Shard) -> None:
            starts = shard.starts[documents[rows] - self._first_document[number]] + begins[rows]
            content[rows] = shard.tokens(np.minimum(starts[:, None] + columns, shard.entry.tokens - 1))

        skipped, reasons = self._shards.fill_rows(shards, fill)
        cls_id, sep_id, pad_id = self.manifest.cls_id, self.manifest.sep_id, self.manifest.pad_id
        return emptied(framed(content, sizes, None, cls_id, sep_id, pad_id), skipped, reasons, pad_id)
