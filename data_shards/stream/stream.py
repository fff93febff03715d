"""The stream: the masked rows of update n, as a pure function of (manifest, settings, n).

Ranks, micro-batches, loader threads and interruptions only cut the same global batch differently. The whole state is one Cursor.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_shards.corpus import Corpus
from data_shards.errors import DataError
from data_shards.storage.token_statistics import check_ordinary_tokens
from data_shards.stream.bucket_order import BucketOrder
from data_shards.stream.bucketed import BucketedDocuments
from data_shards.stream.cursor import Cursor
from data_shards.stream.masking import Masker
from data_shards.stream.order import Order
from data_shards.stream.packed import PackedWindows
from data_shards.stream.settings import StreamSettings
from stillhouse.digests import canonical_sha256


@dataclass(frozen=True)
class StreamBatch:
    """B rows of S positions, masked.

    input_ids: int32 [B, S].
    labels: int32 [B, S]; -100 where nothing is predicted.
    segments: int32 [B, S]; 0 is padding.
    positions: int32 [B, S].
    windows: int64 [B], the rows' ids.
    visits: int64 [B], how often each row was served before.
    first_slot: index of the first row in the global batch.
    missing: skipped shards -> the reason; their rows are padding only.
    """

    input_ids: NDArray[np.int32]
    labels: NDArray[np.int32]
    segments: NDArray[np.int32]
    positions: NDArray[np.int32]
    windows: NDArray[np.int64]
    visits: NDArray[np.int64]
    first_slot: int
    missing: Mapping[str, str] = field(default_factory=dict)


class Stream:
    """One split as endless masked batches. Safe to use from several threads.

    Raises DataError when the folder is not a shard folder, or when the split is smaller than one global batch.
    """

    def __init__(self, corpus: str | Path | Corpus, split: str, settings: StreamSettings, global_batch: int, verify: bool = True) -> None:
        if global_batch < 1:
            raise DataError(f"global_batch: expected at least 1, got {global_batch}; raise it")
        corpus = Corpus.open(corpus, settings.cache_folder)
        root = corpus.location.root
        options: dict[str, Any] = {"verify": verify, "open_shards": settings.lanes + 2, "on_corrupt": settings.on_corrupt}
        self._rows: PackedWindows | BucketedDocuments
        self._order: Order | BucketOrder
        if settings.packing == "windows":
            across = settings.attend_across_documents
            windows = PackedWindows(corpus, split, settings.window_tokens, across_documents=across, **options)
            self._rows = windows
            self._order = Order(windows.shard_windows, settings.lanes, settings.seed)
        else:
            documents = BucketedDocuments(corpus, split, settings.window_tokens, bin_width=settings.bin_width, **options)
            self._rows = documents
            self._order = BucketOrder(documents.widths, documents.shard_windows, global_batch, settings.seed)
        if self._rows.count < global_batch:
            raise DataError(
                f"{root} ({split}): expected at least one global batch of {global_batch} windows, got {self._rows.count}; "
                "lower global_batch or window_tokens, or build from more text"
            )
        check_ordinary_tokens(corpus.token_statistics, root)
        self.global_batch = global_batch
        self._masker = Masker(settings.masking, corpus.token_statistics, settings.seed)
        decisive = settings.model_dump(mode="json", exclude={"cache_folder", "on_corrupt", "max_skipped_shards"})
        if settings.packing == "documents":  # the order of bins depends on it
            decisive["global_batch"] = global_batch
        self.fingerprint = canonical_sha256([corpus.manifest.fingerprint, split, decisive], ascii_only=False)

    @property
    def windows_per_epoch(self) -> int:
        return self._rows.count

    @property
    def tokens_per_epoch(self) -> int:
        """Positions that are not padding, special tokens included."""
        return self._rows.tokens

    def cursor(self, windows: int = 0) -> Cursor:
        """The cursor of a run that has consumed this number of windows."""
        return Cursor(windows, self.fingerprint)

    def check(self, cursor: Cursor) -> None:
        """Raises DataError when a cursor belongs to another corpus, split, order or masking."""
        if cursor.fingerprint != self.fingerprint:
            raise DataError(
                f"cursor: expected the stream {cursor.fingerprint[:12]}… that the run began with, got {self.fingerprint[:12]}…; "
                "the shards or the stream settings have changed: restore them, or start a new run"
            )

    def slots(self, start: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The global batch that starts at a stream index: (window ids [G], visits [G]), int64."""
        return self._order.locate(start + np.arange(self.global_batch))

    def batch(self, start: int, rank: int, world: int, micro_batch: int, micro_index: int) -> StreamBatch:
        """A rank's micro-batch of the update that starts at a stream index.

        Rank r owns the slots i with i % world == r, in order; its micro-batch m is the m-th run of micro_batch of them.
        Raises DataError when global_batch is not world x micro_batch x a whole number.
        """
        count, rest = divmod(self.global_batch, world * micro_batch)
        if rest:
            product = f"ranks x micro_batch = {world} x {micro_batch}"
            raise DataError(f"global_batch: expected a multiple of {product}, got {self.global_batch}; change either")
        if not (0 <= rank < world and 0 <= micro_index < count):
            raise DataError(f"batch: expected a rank below {world} and a micro-batch below {count}, got {rank} and {micro_index}")
        slots = rank + world * (micro_batch * micro_index + np.arange(micro_batch))
        windows, visits = self._order.locate(start + slots)
        return self._masked(windows, visits, int(slots[0]))

    def sequential(self, batch: int, rank: int = 0, world: int = 1) -> Iterator[StreamBatch]:
        """Every window once, in natural order, masked as at visit 0; the last batch may be smaller.

        Of several ranks each takes every world-th batch.
        """
        for first in range(rank * batch, self._rows.count, batch * world):
            windows = np.arange(first, min(first + batch, self._rows.count), dtype=np.int64)
            yield self._masked(windows, np.zeros_like(windows), first)

    def _masked(self, windows: NDArray[np.int64], visits: NDArray[np.int64], first_slot: int) -> StreamBatch:
        rows = self._rows.read(windows)
        input_ids, labels = self._masker.apply(rows, windows, visits)
        return StreamBatch(input_ids, labels, rows.segments, rows.positions, windows, visits, first_slot, rows.missing)
