"""Ids to shards: documents are collected in a block, blocks in a tar; a shard gets its name when it is whole and synced.

The ends of blocks and shards depend on the documents alone, never on the sizes of the calls that add them.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_shards.storage.manifest import SPLITS, ShardEntry
from data_shards.storage.shard import LENGTHS
from data_shards.storage.tar_format import RECORD, member_header, npy_bytes, padding
from stillhouse.files import sync_path

Ids = NDArray[Any]


class TarWriter:
    """One unfinished shard, under a temporary name."""

    def __init__(self, folder: Path, name: str, number: int) -> None:
        self.documents = self.tokens = 0
        self._folder = folder
        self._name = name
        self._number = number
        self._blocks = self._bytes = 0
        self._sha256 = hashlib.sha256()
        self._file = open(folder / f".{name}.partial", "wb")  # noqa: SIM115 - closed by close() or abandon()

    def add_block(self, ids: Ids, lengths: NDArray[np.uint32]) -> None:
        """Append consecutive documents: all their ids, and the tokens of each."""
        ids, lengths = ids.astype(ids.dtype.newbyteorder("<"), copy=False), lengths.astype(LENGTHS, copy=False)
        facts = {
            "crc32": zlib.crc32(ids.tobytes()),
            "documents": len(lengths),
            "lengths_crc32": zlib.crc32(lengths.tobytes()),
            "tokens": len(ids),
        }
        key = f"{self._number:06d}-{self._blocks:05d}"
        self._member(f"{key}.json", json.dumps(facts, sort_keys=True).encode())
        self._member(f"{key}.lengths.npy", npy_bytes(lengths))
        self._member(f"{key}.tokens.npy", npy_bytes(ids))
        self._blocks += 1
        self.documents += len(lengths)
        self.tokens += len(ids)

    def close(self) -> ShardEntry:
        """Make the shard durable under its name."""
        self._write(b"\0" * 2 * RECORD)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        (self._folder / f".{self._name}.partial").replace(self._folder / self._name)
        sync_path(self._folder)
        return ShardEntry(name=self._name, bytes=self._bytes, sha256=self._sha256.hexdigest(), documents=self.documents, tokens=self.tokens)

    def abandon(self) -> None:
        """Close and remove the unfinished shard."""
        try:
            self._file.close()
        finally:
            (self._folder / f".{self._name}.partial").unlink(missing_ok=True)

    def _member(self, name: str, content: bytes) -> None:
        for part in (member_header(name, len(content)), content, padding(len(content))):
            self._write(part)

    def _write(self, part: bytes) -> None:
        self._file.write(part)
        self._sha256.update(part)
        self._bytes += len(part)


class SplitWriter:
    """One split's documents, cut into blocks and shards.

    `on_shard_written` is called with the entry of each shard that became durable. `consumed` counts the documents of all closed blocks,
    tokenless ones included. `digest` is over the digests of these documents.
    """

    def __init__(
        self,
        folder: Path,
        split: str,
        block_tokens: int,
        shard_tokens: int,
        vocabulary_size: int,
        on_shard_written: Callable[[ShardEntry], None],
    ) -> None:
        self.split = split
        self.entries: list[ShardEntry] = []
        self.consumed = 0
        self.digest = hashlib.sha256()
        self.counts = np.zeros(vocabulary_size, np.int64)
        self._folder = folder
        self._block_tokens = block_tokens
        self._shard_tokens = shard_tokens
        self._on_shard_written = on_shard_written
        self._tar: TarWriter | None = None
        self._pending: list[tuple[Ids, NDArray[np.uint32], list[bytes]]] = []
        self._pending_tokens = 0

    def add(self, ids: Ids, lengths: NDArray[np.uint32], digests: list[bytes]) -> None:
        """Append the next documents of the split: all their ids, the tokens and the digest of each."""
        ends = np.cumsum(lengths, dtype=np.int64)
        first = token = 0
        while first < len(lengths):
            limit = token + self._block_tokens - self._pending_tokens
            last = int(np.searchsorted(ends, limit))  # the document that fills the block
            last, full = (last, True) if last < len(lengths) else (len(lengths) - 1, False)
            self._pending.append((ids[token : ends[last]], lengths[first : last + 1], digests[first : last + 1]))
            self._pending_tokens += int(ends[last]) - token
            first, token = last + 1, int(ends[last])
            if full:
                self._close_block()

    def finish(self) -> None:
        """Close the last shard of the split."""
        if self._pending:
            self._close_block()
        if self._tar is not None:
            self._close_shard()

    def abandon(self) -> None:
        """Remove the unfinished shard. The durable ones stay."""
        if self._tar is not None:
            self._tar.abandon()

    def _close_block(self) -> None:
        ids, lengths = (np.concatenate([part[index] for part in self._pending]) for index in (0, 1))
        self.consumed += len(lengths)
        self.digest.update(b"".join(digest for part in self._pending for digest in part[2]))
        self._pending, self._pending_tokens = [], 0
        lengths = lengths[lengths > 0]
        if not len(lengths):
            return
        self.counts += np.bincount(ids, minlength=len(self.counts))
        if self._tar is None:
            number = len(self.entries)
            self._tar = TarWriter(self._folder, f"{self.split}-{number:06d}.tar", number)
        self._tar.add_block(ids, lengths)
        if self._tar.tokens >= self._shard_tokens:
            self._close_shard()

    def _close_shard(self) -> None:
        if self._tar is not None:
            entry = self._tar.close()
            self._tar = None
            self.entries.append(entry)
            self._on_shard_written(entry)


class ShardWriters:
    """The shards of both splits. A context: leaving it closes the last shards; after an error no unfinished shard is left.

    on_shard_written: called with the entry of each shard that became durable.
    """

    def __init__(
        self,
        folder: Path,
        block_tokens: int,
        shard_tokens: int,
        vocabulary_size: int,
        on_shard_written: Callable[[ShardEntry], None] = lambda entry: None,
    ) -> None:
        sizes = (block_tokens, shard_tokens, vocabulary_size)
        self.splits = {split: SplitWriter(folder, split, *sizes, on_shard_written) for split in SPLITS}

    def __enter__(self) -> "ShardWriters":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        try:
            if error is None:
                for writer in self.splits.values():
                    writer.finish()
        finally:
            for writer in self.splits.values():
                with suppress(OSError):
                    writer.abandon()

    @property
    def entries(self) -> dict[str, tuple[ShardEntry, ...]]:
        """The durable shards of each split."""
        return {split: tuple(writer.entries) for split, writer in self.splits.items()}

    @property
    def counts(self) -> NDArray[np.int64]:
        """Count of each id in the train split. int64 [V]."""
        return self.splits["train"].counts
