"""Documents to blocks of ids: chunks of texts are tokenised in several processes, and the results come back in order."""

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from data_shards.build.progress import ProgressClock
from data_shards.storage.manifest import SPLITS
from data_shards.storage.shard_writer import ShardWriters
from data_shards.tokenizer.workers import Ids, Lengths, TokeniserPool

CHUNK_BYTES = 1 << 19
CHUNK_DOCUMENTS = 4096
CHUNKS_PER_PROCESS = 3


@dataclass
class Chunk:
    """Consecutive documents before they are tokenised. left_out: documents left out before each; see Block for the rest."""

    texts: list[bytes] = field(default_factory=list)
    splits: list[int] = field(default_factory=list)
    digests: list[bytes] = field(default_factory=list)
    left_out: list[int] = field(default_factory=list)
    group_ends: bool = False
    text_bytes: int = 0

    def add(self, text: bytes, split: int, digest: bytes, left_out: int = 0) -> None:
        """Append one document of UTF-8 text."""
        self.texts.append(text)
        self.splits.append(split)
        self.digests.append(digest)
        self.left_out.append(left_out)
        self.text_bytes += len(text)

    @property
    def is_full(self) -> bool:
        return self.text_bytes >= CHUNK_BYTES or len(self.texts) >= CHUNK_DOCUMENTS


@dataclass
class Block:
    """Consecutive documents: tokens, number of left-out documents before it, split (its number, or EMPTY) and digest of each.

    ids: of all documents, one after another. group_ends: the last document is the last of its group (see data_shards/build/parts.py).
    """

    lengths: NDArray[np.uint32]
    left_out: NDArray[np.uint32]
    splits: NDArray[np.uint8]
    digests: list[bytes]
    ids: Ids
    group_ends: bool = False


def tokenised(chunks: Iterable[Chunk], pool: TokeniserPool, processes: int, clock: ProgressClock) -> Iterator[Block]:
    """The chunks as blocks, in order. At most CHUNKS_PER_PROCESS chunks per process are waiting or in progress."""
    waiting: deque[tuple[Chunk, Future[tuple[Ids, Lengths]]]] = deque()
    for chunk in chunks:
        waiting.append((chunk, pool.submit(chunk.texts)))
        while len(waiting) > CHUNKS_PER_PROCESS * processes or (waiting and waiting[0][1].done()):
            yield _block(*waiting.popleft(), clock)
    while waiting:
        yield _block(*waiting.popleft(), clock)


def _block(chunk: Chunk, result: Future[tuple[Ids, Lengths]], clock: ProgressClock) -> Block:
    ids, lengths = result.result()
    clock.fresh_tokens += len(ids)
    return Block(lengths, np.asarray(chunk.left_out, np.uint32), np.array(chunk.splits, np.uint8), chunk.digests, ids, chunk.group_ends)


def write_block(shards: ShardWriters, block: Block, keep: NDArray[np.bool_] | None = None) -> None:
    """Add the documents of a block to the shards of their splits. keep: bool [documents]; None: all."""
    for number, split in enumerate(SPLITS):
        chosen = block.splits == number if keep is None else keep & (block.splits == number)
        if chosen.any():
            digests = [digest for digest, is_chosen in zip(block.digests, chosen, strict=True) if is_chosen]
            shards.splits[split].add(block.ids[np.repeat(chosen, block.lengths)], block.lengths[chosen], digests)
