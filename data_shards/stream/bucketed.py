"""Pieces: one piece of one document per row, in batches of like length; the alternative to packed windows that DistilBERT uses.

A document is cut into pieces of at most L - 2 tokens, each framed as [CLS] piece [SEP]. A bin holds the pieces whose row length
rounds up to the same multiple of bin_width; every global batch comes from one bin, except the mixed ones of an epoch's leftovers.
All of it follows from lengths-SPLIT.npy; memory is some 12 bytes a document and 10 bytes a piece.
"""

import threading
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import DataError
from data_shards.storage.location import Location
from data_shards.storage.manifest import Manifest
from data_shards.storage.open_shards import Shelf, offsets
from data_shards.storage.shard import LENGTHS
from data_shards.storage.tar_format import npy_array
from data_shards.stream.counter_hash import permutation
from data_shards.stream.order import SHARDS, WINDOWS
from data_shards.stream.packed import MIN_WINDOW_TOKENS
from data_shards.stream.rows import Rows, emptied, framed

KEPT_EPOCHS = 2


def lengths_name(split: str) -> str:
    """The sidecar with the tokens of each document of a split, in order: uint32 [documents]."""
    return f"lengths-{split}.npy"


def read_lengths(location: Location, manifest: Manifest, split: str) -> NDArray[np.uint32]:
    """Tokens of each document of a split. Raises DataError when the file does not keep the manifest's promise."""
    content = manifest.sidecar(location, lengths_name(split))
    try:
        return npy_array(content, LENGTHS, manifest.documents(split))
    except ValueError as error:
        where = location.where(lengths_name(split))
        raise DataError(f"{where}: expected the lengths of {split}, got {error}; build the shards again") from None


class Pieces:
    """All pieces of a split; a piece's id is the number of pieces before it."""

    def __init__(
        self,
        folder: str | Path | Location,
        split: str,
        window_tokens: int,
        cache_dir: str | Path | None = None,
        verify: bool = True,
        bin_width: int = 32,
        open_shards: int = 64,
        on_corrupt: Literal["stop", "skip"] = "stop",
    ) -> None:
        if window_tokens < MIN_WINDOW_TOKENS:
            raise DataError(f"window_tokens: expected at least {MIN_WINDOW_TOKENS}, got {window_tokens}; raise it")
        location = Location.of(folder, cache_dir)
        self.manifest = Manifest.load(location)
        self.window_tokens = window_tokens
        self._shelf = Shelf(location, self.manifest, split, open_shards, verify, on_corrupt)
        self._piece_tokens = window_tokens - 2
        self._lengths = read_lengths(location, self.manifest, split)
        self._first_document = offsets([entry.documents for entry in self._shelf.entries])
        pieces = -(-self._lengths.astype(np.int64) // self._piece_tokens)
        self._first_piece = np.concatenate([[0], np.cumsum(pieces)])
        self.shard_windows = [int(count) for count in np.diff(self._first_piece[self._first_document])]
        self.count = int(self._first_piece[-1])
        self.tokens = int(self._lengths.sum(dtype=np.int64)) + 2 * self.count
        """Positions that are not padding, special tokens included, over all pieces."""
        sizes = np.full(self.count, self._piece_tokens, np.int64)
        sizes[self._first_piece[1:] - 1] = self._lengths - (pieces - 1) * self._piece_tokens
        rounded = -(-(sizes + 2) // bin_width) * bin_width
        self.widths = np.minimum(rounded, window_tokens).astype(np.uint16 if window_tokens < 1 << 16 else np.uint32)
        """Row length of each piece after rounding, [count]: the number of its bin."""

    @property
    def padding_share(self) -> float:
        """Padding positions / all positions, for rows as wide as their bin."""
        return 1.0 - self.tokens / int(self.widths.sum(dtype=np.int64))

    def read(self, ids: NDArray[np.int64]) -> Rows:
        """The pieces with these ids, in this order. int64 [B] -> Rows [B, S]; S is the largest bin among them."""
        ids = np.asarray(ids, np.int64)
        documents = np.searchsorted(self._first_piece, ids, side="right") - 1
        begins = (ids - self._first_piece[documents]) * self._piece_tokens
        sizes = np.minimum(self._lengths[documents].astype(np.int64) - begins, self._piece_tokens)
        content = np.zeros((len(ids), int(self.widths[ids].max()) - 2), np.int32)
        columns = np.arange(content.shape[1])
        shards = np.searchsorted(self._first_document, documents, side="right") - 1
        lost = np.zeros(len(ids), np.bool_)
        missing: dict[str, str] = {}
        for number in np.unique(shards):
            rows = np.flatnonzero(shards == number)
            shard = self._shelf.shard_or_fault(int(number))
            if isinstance(shard, str):
                lost[rows] = True
                missing[self._shelf.entries[number].name] = shard
                continue
            starts = shard.starts[documents[rows] - self._first_document[number]] + begins[rows]
            content[rows] = shard.tokens(np.minimum(starts[:, None] + columns, shard.entry.tokens - 1))
        framing = (self.manifest.cls_id, self.manifest.sep_id, self.manifest.pad_id)
        return emptied(framed(content, sizes, None, *framing), lost, missing, self.manifest.pad_id)


class PieceOrder:
    """Stream positions 0, 1, 2, … over endless epochs -> pieces, so that the global batches [n * G, (n + 1) * G) are of one bin each.

    An epoch walks the permuted shards and the permuted pieces within each; a batch is served when its bin fills, the leftovers at the
    end, sorted by bin. Where the epoch before ended inside a batch, the first of the leftovers complete that batch.
    Safe to use from several threads.
    """

    def __init__(self, widths: NDArray[Any], shard_pieces: list[int], global_batch: int, seed: int) -> None:
        self.windows = len(widths)
        self._widths = widths
        self._shard_pieces = shard_pieces
        self._first = offsets(shard_pieces)
        self._global_batch = global_batch
        self._seed = seed
        self._epochs: dict[int, NDArray[np.int64]] = {}
        self._lock = threading.Lock()

    def locate(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Stream positions [G] -> (piece ids [G], visits [G]), int64; the visit is the epoch."""
        visits, places = np.divmod(np.asarray(positions, np.int64), self.windows)
        pieces = np.empty_like(places)
        for epoch in np.unique(visits):
            chosen = visits == epoch
            pieces[chosen] = self._epoch(int(epoch))[places[chosen]]
        return pieces, visits

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """The pieces of an epoch in the order they are served. int64 [windows]."""
        with self._lock:
            order = self._epochs.pop(epoch, None)
            if order is None:
                order = self._served(epoch)
            self._epochs[epoch] = order  # the last used is the last to go: loader workers ask for earlier epochs after later ones
            while len(self._epochs) > KEPT_EPOCHS:
                del self._epochs[next(iter(self._epochs))]
            return order

    def _served(self, epoch: int) -> NDArray[np.int64]:
        size = self._global_batch
        shards = permutation(len(self._shard_pieces), self._seed, SHARDS, epoch)
        walk = np.concatenate(
            [self._first[shard] + permutation(self._shard_pieces[shard], self._seed, WINDOWS, epoch, int(shard)) for shard in shards]
        )
        by_bin = np.argsort(self._widths[walk], kind="stable")
        _, counts = np.unique(self._widths, return_counts=True)
        within = np.arange(self.windows) - np.repeat(np.cumsum(counts) - counts, counts)
        whole = within < np.repeat(counts // size * size, counts)
        batches = by_bin[whole].reshape(-1, size)
        batches = batches[np.argsort(batches[:, -1])]  # a batch is ready when the walk meets its last piece
        leftovers = by_bin[~whole]
        head = -self.windows * epoch % size
        if len(leftovers) < head:
            batches, leftovers = batches[:-1], np.concatenate([leftovers, batches[-1]])
        return walk[np.concatenate([leftovers[:head], batches.ravel(), leftovers[head:]])]
