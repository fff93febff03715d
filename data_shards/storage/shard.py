"""One shard, open for random access: its bytes are memory-mapped, and nothing is unpickled.

A shard is a sequence of blocks. A block holds consecutive whole documents: ids without special tokens, lengths, and a crc32 of each.
"""

import errno
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import DamagedFile, DataError
from data_shards.storage.location import Location
from data_shards.storage.manifest import ShardEntry
from data_shards.storage.tar_format import BrokenTar, Bytes, Member, members, npy_payload
from stillhouse.files import sha256_of_file

LENGTHS = np.dtype("<u4")
MOST_JSON = 4096  # bytes that describe a block
UNREACHED = (errno.EMFILE, errno.ENFILE, errno.EACCES, errno.EPERM, errno.ESTALE, errno.ENOTCONN)
"""Errors of limits, permissions or a server: the shard itself may be whole."""


@dataclass(frozen=True)
class Block:
    """Consecutive documents of a shard; offsets are bytes of the tar."""

    key: str
    documents: int
    tokens: int
    lengths_at: int
    tokens_at: int
    crc32: int
    lengths_crc32: int

    def fault(self, tar: Bytes, dtype: np.dtype[Any]) -> str | None:
        """A description of wrong numbers in the block, or None."""
        for kind, start, size, promised in (
            ("lengths", self.lengths_at, self.documents * LENGTHS.itemsize, self.lengths_crc32),
            ("tokens", self.tokens_at, self.tokens * dtype.itemsize, self.crc32),
        ):
            actual = zlib.crc32(tar[start : start + size].data)
            if actual != promised:
                return f"{kind} with crc32 {actual:08x} where {promised:08x} was promised"
        lengths = tar[self.lengths_at : self.lengths_at + self.documents * LENGTHS.itemsize].view(LENGTHS)
        if int(lengths.sum(dtype=np.int64)) != self.tokens:
            return f"lengths that add up to {int(lengths.sum(dtype=np.int64))} where {self.tokens} tokens lie"
        return None


def blocks(tar: Bytes, dtype: np.dtype[Any]) -> Iterator[Block]:
    """The blocks of a tar in order. Raises BrokenTar where one is not whole."""
    parts: dict[str, Member] = {}
    for member in members(tar):
        if parts and next(iter(parts.values())).key != member.key:
            raise BrokenTar(f"{next(iter(parts.values())).key} without all of its three members")
        parts[member.kind] = member
        if len(parts) == 3:
            yield _block(tar, parts, dtype)
            parts = {}
    if parts:
        raise BrokenTar(f"{next(iter(parts.values())).key} without all of its three members")


def _block(tar: Bytes, parts: dict[str, Member], dtype: np.dtype[Any]) -> Block:
    head, key = parts["json"], parts["json"].key
    try:
        if head.stop - head.start > MOST_JSON:
            raise ValueError(f"{head.stop - head.start} bytes")
        facts = json.loads(tar[head.start : head.stop].tobytes())
        documents, tokens, crc32, lengths_crc32 = (int(facts[name]) for name in ("documents", "tokens", "crc32", "lengths_crc32"))
        if documents < 0 or tokens < 0:
            raise ValueError("a negative count")
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise BrokenTar(f"{key}.json that is not a block's ({' '.join(str(error).split())})") from None
    lengths_at = npy_payload(tar, parts["lengths.npy"], LENGTHS, documents)
    tokens_at = npy_payload(tar, parts["tokens.npy"], dtype, tokens)
    return Block(key, documents, tokens, lengths_at, tokens_at, crc32, lengths_crc32)


@dataclass(frozen=True)
class Shard:
    """An open shard of D documents and T tokens.

    lengths: uint32 [D]. starts: int64 [D + 1], where each document begins among the shard's tokens; the last entry is T.
    """

    entry: ShardEntry
    blocks: tuple[Block, ...]
    lengths: NDArray[np.uint32]
    starts: NDArray[np.int64]
    _tar: Bytes = field(repr=False)
    _words: NDArray[Any] = field(repr=False)
    _block_starts: NDArray[np.int64] = field(repr=False)
    _block_shifts: NDArray[np.int64] = field(repr=False)

    @classmethod
    def open(
        cls,
        folder: str | Path | Location,
        entry: ShardEntry,
        verify: bool = True,
        dtype: str = "uint16",
    ) -> "Shard":
        """The shard of a manifest's entry. `verify` reads it whole and compares its sha256.

        Raises DamagedFile naming shard and key when the shard is missing, shortened or altered, DataError when it cannot be reached.
        """
        location = Location.of(folder)
        ids = np.dtype(dtype).newbyteorder("<")
        try:
            path = location.path(entry.name, entry.bytes, entry.sha256)
            if location.is_remote and verify and sha256_of_file(path) != entry.sha256:
                path = location.path(entry.name, entry.bytes, entry.sha256, anew=True)
        except DamagedFile as fault:
            if fault.copy is None:
                raise
            raise DamagedFile(damage(_mapped(fault.copy, entry), ids, entry, location.where(entry.name))) from None
        except OSError as error:
            raise _kind(error)(f"{path}: expected a shard that can be read, got {error.strerror}; {_advice(error)}") from None
        tar = _mapped(path, entry)
        if len(tar) != entry.bytes or (verify and sha256_of_file(path) != entry.sha256):
            raise DamagedFile(damage(tar, ids, entry, str(path)))
        try:
            shard_blocks = tuple(blocks(tar, ids))
        except BrokenTar:
            raise DamagedFile(damage(tar, ids, entry, str(path))) from None
        if _foreign_key(shard_blocks, entry) is not None:
            raise DamagedFile(damage(tar, ids, entry, str(path)))
        lengths = np.concatenate(
            [np.zeros(0, LENGTHS), *(tar[b.lengths_at : b.lengths_at + b.documents * 4].view(LENGTHS) for b in shard_blocks)]
        )
        starts = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
        if (len(lengths), int(starts[-1])) != (entry.documents, entry.tokens):
            promised = f"{entry.documents} documents and {entry.tokens} tokens"
            raise DamagedFile(f"{path}: expected {promised}, got {len(lengths)} and {starts[-1]}; build the shards again")
        block_starts = np.concatenate([[0], np.cumsum([b.tokens for b in shard_blocks], dtype=np.int64)])[:-1]
        shifts = np.array([b.tokens_at // ids.itemsize for b in shard_blocks], np.int64) - block_starts
        words = tar[: len(tar) - len(tar) % ids.itemsize].view(ids)
        return cls(entry, shard_blocks, lengths, starts, tar, words, block_starts, shifts)

    def tokens(self, indices: NDArray[np.int64]) -> NDArray[np.int32]:
        """The ids at indices 0..T-1 of the shard's tokens. int32, of the shape of `indices`."""
        block = np.searchsorted(self._block_starts, indices, side="right") - 1
        return np.asarray(self._words[indices + self._block_shifts[block]]).astype(np.int32)

    def fault(self, block: Block) -> str | None:
        """A description of wrong numbers in one of the blocks, or None."""
        return block.fault(self._tar, self._words.dtype)

    def document(self, index: int) -> NDArray[np.int32]:
        """The ids of one document."""
        return self.tokens(np.arange(self.starts[index], self.starts[index + 1]))


def damage(tar: Bytes, dtype: np.dtype[Any], entry: ShardEntry, where: str) -> str:
    """One line that names the first damage of a shard."""
    last = "none"
    advice = "bring the file back, or build the shards again"
    try:
        for block in blocks(tar, dtype):
            fault = block.fault(tar, dtype)
            if fault:
                return f"{where}, key {block.key}: expected the tokens that were written, got {fault}; {advice}"
            if _foreign_key((block,), entry):
                return f"{where}, key {block.key}: expected keys of shard {_number(entry)}, got another shard's file; {advice}"
            last = block.key
    except BrokenTar as broken:
        size = f" ({len(tar)} bytes of {entry.bytes})" if len(tar) != entry.bytes else ""
        return f"{where}: expected a whole shard, got {broken}{size}; the last whole key is {last}; {advice}"
    if len(tar) != entry.bytes:
        return f"{where}: expected {entry.bytes} bytes, got {len(tar)}; the last whole key is {last}; {advice}"
    return f"{where}: expected sha256 {entry.sha256[:12]}…, got other bytes between the blocks, though each block is whole; {advice}"


def _mapped(path: Path, entry: ShardEntry) -> Bytes:
    """The bytes of a file. Raises DamagedFile when there is nothing to map, and MemoryError when no addresses are left for it."""
    try:
        return np.memmap(path, np.uint8, "r")
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno == errno.ENOMEM:
            raise MemoryError(f"{path}: could not allocate {entry.bytes} bytes") from None
        raise _kind(error)(f"{path}: expected a shard of {entry.bytes} bytes, got {error}; {_advice(error)}") from None


def _kind(error: Exception) -> type[DataError]:
    """DamagedFile for a shard that is damaged, DataError for one that cannot be reached, which is never skipped."""
    return DataError if isinstance(error, OSError) and error.errno in UNREACHED else DamagedFile


def _advice(error: Exception) -> str:
    if _kind(error) is DamagedFile:
        return "bring it back, or build the shards again"
    return "see its permissions and the limits of this process (ulimit -a), and start again"


def _number(entry: ShardEntry) -> str:
    """The shard's number, which its keys begin with."""
    return entry.name.removesuffix(".tar").rpartition("-")[2]


def _foreign_key(shard_blocks: Sequence[Block], entry: ShardEntry) -> str | None:
    """The first key that is not of this shard, if there is one."""
    return next((block.key for block in shard_blocks if block.key.partition("-")[0] != _number(entry)), None)
