"""Ids to shards: documents gather in a block, blocks in a tar; a shard gets its name only when it is whole and synced.

Where blocks and shards end depends on the documents alone, never on how they arrived.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_shards.storage.manifest import ShardEntry
from data_shards.storage.shard import LENGTHS
from data_shards.storage.tar_format import RECORD, member_header, npy_bytes, padding
from stillhouse.files import sync_path

Ids = NDArray[Any]


class TarWriter:
    """One shard in the making, under a name that no reader looks for."""

    def __init__(self, folder: Path, name: str, number: int) -> None:
        self.documents = self.tokens = 0
        self._folder = folder
        self._name = name
        self._number = number
        self._blocks = self._bytes = 0
        self._sha256 = hashlib.sha256()
        self._file = open(folder / f".{name}.partial", "wb")  # noqa: SIM115 - closed by close() or abandon()

    def add_block(self, ids: Ids, lengths: NDArray[np.uint32]) -> None:
        """Consecutive documents: all their ids, and the tokens of each."""
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
        """Leave no part of the shard behind."""
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

    `sealed` is called after each shard that became durable, with its entry. `consumed` counts the documents that came in, tokenless ones
    among them; `digest` is over the digests of all documents in the durable shards and the blocks before the gathering one.
    """

    def __init__(
        self, folder: Path, split: str, block_tokens: int, shard_tokens: int, vocabulary_size: int, sealed: Callable[[ShardEntry], None]
    ) -> None:
        self.split = split
        self.entries: list[ShardEntry] = []
        self.consumed = 0
        self.digest = hashlib.sha256()
        self.counts = np.zeros(vocabulary_size, np.int64)
        self._folder = folder
        self._block_tokens = block_tokens
        self._shard_tokens = shard_tokens
        self._sealed = sealed
        self._tar: TarWriter | None = None
        self._gathered: list[tuple[Ids, NDArray[np.uint32], list[bytes]]] = []
        self._gathered_tokens = 0

    def add(self, ids: Ids, lengths: NDArray[np.uint32], digests: list[bytes]) -> None:
        """The next documents of the split: all their ids, the tokens and the digest of each."""
        ends = np.cumsum(lengths, dtype=np.int64)
        first = token = 0
        while first < len(lengths):
            wanted = token + self._block_tokens - self._gathered_tokens
            last = int(np.searchsorted(ends, wanted))  # the document that fills the block
            last, full = (last, True) if last < len(lengths) else (len(lengths) - 1, False)
            self._gathered.append((ids[token : ends[last]], lengths[first : last + 1], digests[first : last + 1]))
            self._gathered_tokens += int(ends[last]) - token
            first, token = last + 1, int(ends[last])
            if full:
                self._close_block()

    def finish(self) -> None:
        """Close what is gathered as the split's last shard."""
        if self._gathered:
            self._close_block()
        if self._tar is not None:
            self._close_shard()

    def abandon(self) -> None:
        """Give up the shard in the making; the durable ones stay."""
        if self._tar is not None:
            self._tar.abandon()

    def _close_block(self) -> None:
        ids, lengths = (np.concatenate([part[index] for part in self._gathered]) for index in (0, 1))
        self.consumed += len(lengths)
        self.digest.update(b"".join(digest for part in self._gathered for digest in part[2]))
        self._gathered, self._gathered_tokens = [], 0
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
            self._sealed(entry)
