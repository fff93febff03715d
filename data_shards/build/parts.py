"""The parts of a build, for many machines: each tokenises its share, and a merge makes the folder that a single build makes.

1. The files of the sources are the items. With fewer files than parts, each is cut into stripes (every m-th group of documents).
   Items are distributed over the parts by size, a function of the sources and the number of parts alone.
2. A part reads its items. For each document it writes split, digest, number of tokens and ids.
3. `data_shards/build/merge.py` reads the items in the order of the sources.

`FOLDER/.parts/` holds an item under its name once it is whole. Nothing is pickled.
"""

import hashlib
import os
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from data_shards.build.blocks import Block, Chunk, tokenised
from data_shards.build.documents import DIGEST_BYTES, EMPTY, SplitRule
from data_shards.build.folder import finished, locked
from data_shards.build.progress import BuildProgress, ProgressClock
from data_shards.build.settings import BuildSettings
from data_shards.errors import DataError
from data_shards.sources.files import find_files
from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import SourceCounts, documents
from data_shards.storage.download import is_url
from data_shards.storage.manifest import smallest_dtype
from data_shards.tokenizer.fingerprint import plain_json, tokenizer_fingerprint
from data_shards.tokenizer.tokenizer import load_tokenizer, special_ids, vocabulary_size
from data_shards.tokenizer.workers import TokeniserPool

PARTS = ".parts"
GROUP_DOCUMENTS = 4096  # consecutive documents of one stripe
FRAME = struct.Struct("<QQQQI")  # documents, tokens, documents left out after the last, whether a group ends, crc32 of what follows
END = (1 << 64) - 1


@dataclass(frozen=True)
class Item:
    """A file of a source (or a whole source that is no file), or one stripe of it."""

    number: int
    source: SourceSettings
    stripe: int
    stripes: int
    bytes: int

    @property
    def name(self) -> str:
        return f"{self.number:06d}-{self.stripe:04d}-of-{self.stripes:04d}-{self.bytes}"


def items(settings: BuildSettings, parts: int) -> list[list[Item]]:
    """The items of each part. Raises DataError when a source does not exist."""
    files = []
    for source in settings.sources:
        if source.kind == "dataset":
            files.append((source, 0))
            continue
        for path, kind in find_files(source).files:
            file = source.model_copy(update={"path": path, "kind": kind})
            files.append((file, 0 if is_url(path) else Path(path).stat().st_size))
    stripes = -(-parts // len(files)) if len(files) < parts else 1
    cut = [Item(number, source, s, stripes, size // stripes) for number, (source, size) in enumerate(files) for s in range(stripes)]
    dealt: list[list[Item]] = [[] for _ in range(parts)]
    loads = [(0, 0, part) for part in range(parts)]  # bytes, items, part: the part with the fewest bytes gets the largest remaining item
    for item in sorted(cut, key=lambda item: (-item.bytes, item.number, item.stripe)):
        bytes_, count, part = min(loads)
        dealt[part].append(item)
        loads[part] = (bytes_ + item.bytes, count + 1, part)
    return [sorted(share, key=lambda item: (item.number, item.stripe)) for share in dealt]


def build_part(
    settings: BuildSettings,
    folder: str | Path,
    part: int,
    parts: int,
    processes: int | None = None,
    progress: Callable[[BuildProgress], None] | None = None,
) -> None:
    """Tokenise part `part` (0 .. parts - 1) of the corpus into FOLDER/.parts. Items that an earlier call has finished are kept.

    Raises DataError as `build` does.
    """
    folder = Path(folder)
    if finished(folder, settings) is not None:
        return
    tokenizer = load_tokenizer(settings.tokenizer)
    special_ids(tokenizer, settings.tokenizer)
    dtype = smallest_dtype(vocabulary_size(tokenizer))
    processes = processes or len(os.sched_getaffinity(0))
    target = part_folder(folder, settings, tokenizer, parts)
    share = items(settings, parts)[part]
    with locked(folder, target / f".{part}.lock"):
        remaining = [item for item in share if not (target / item.name).is_file()]
        clock = ProgressClock(progress, sum(item.bytes * item.stripes for item in remaining) or None)
        clock.start_fresh()
        with TokeniserPool(plain_json(tokenizer), dtype, processes) as pool:
            reader = _Reader(settings, clock)
            for item in remaining:
                _write_item(target, item, reader, tokenised(reader.chunks(item), pool, processes, clock))


def part_folder(folder: Path, settings: BuildSettings, tokenizer: Any, parts: int) -> Path:
    """The folder for the parts of these settings, this tokenizer and this number of parts. Others never mix with them."""
    decisive = f"{settings.model_dump_json(exclude={'drop_duplicates', 'max_documents'})} {tokenizer_fingerprint(tokenizer)} {parts}"
    return folder / PARTS / hashlib.sha256(decisive.encode()).hexdigest()[:16]


class _Reader:
    """The documents of a part's items. left_out: invalid documents after the last document of the last item."""

    def __init__(self, settings: BuildSettings, clock: ProgressClock) -> None:
        self.left_out = self._documents = 0
        self._rule = SplitRule(settings)
        self._counts = SourceCounts()
        self._clock = clock

    def chunks(self, item: Item) -> Iterator[Chunk]:
        """The documents of a stripe, by the half megabyte; those without text have the text b""."""
        chunk, invalid = Chunk(), self._counts.invalid
        for number, document in enumerate(documents(item.source, self._counts)):
            before, invalid = self._counts.invalid - invalid, self._counts.invalid
            group, index = divmod(number, GROUP_DOCUMENTS)
            if group % item.stripes != item.stripe:
                continue
            text = document.text.encode()
            split, digest = self._rule(text)
            chunk.add(text if split != EMPTY else b"", split, digest, before)
            chunk.group_ends = index == GROUP_DOCUMENTS - 1
            self._documents += 1
            if chunk.is_full or chunk.group_ends:
                yield chunk
                chunk = Chunk()
                self._clock.report(self._documents, 0, self._counts.bytes_read)
        if chunk.texts:
            yield chunk
        self._clock.report(self._documents, 0, self._counts.bytes_read)
        self.left_out = self._counts.invalid - invalid


def _write_item(folder: Path, item: Item, reader: _Reader, blocks: Iterator[Block]) -> None:
    partial = folder / f".{item.name}.partial"
    with open(partial, "wb") as file:
        for block in blocks:
            _write_block(file, block)
        file.write(FRAME.pack(END, 0, reader.left_out, 1, 0))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(folder / item.name)


def _write_block(file: BinaryIO, block: Block) -> None:
    content = b"".join(
        [
            block.lengths.astype("<u4").tobytes(),
            block.left_out.astype("<u4").tobytes(),
            block.splits.tobytes(),
            b"".join(block.digests),
            block.ids.astype(block.ids.dtype.newbyteorder("<"), copy=False).tobytes(),
        ]
    )
    file.write(FRAME.pack(len(block.lengths), len(block.ids), 0, block.group_ends, zlib.crc32(content)) + content)


def read_item(path: Path, dtype: str) -> Iterator[tuple[Block | None, int]]:
    """(block, 0) for each block, and last (None, documents left out after the last one). Raises DataError on damage."""
    width = np.dtype(dtype).itemsize
    with path.open("rb") as file:
        while True:
            frame = file.read(FRAME.size)
            if len(frame) != FRAME.size:
                break
            count, tokens, left_out, group_ends, crc32 = FRAME.unpack(frame)
            if count == END:
                yield None, left_out
                return
            size = count * (9 + DIGEST_BYTES) + tokens * width
            content = file.read(size) if size <= path.stat().st_size else b""
            if len(content) != size or zlib.crc32(content) != crc32:
                break
            starts = [0, 4 * count, 8 * count, 9 * count, (9 + DIGEST_BYTES) * count]
            lengths, left = (np.frombuffer(content[first : first + 4 * count], "<u4") for first in starts[:2])
            digests = [content[i : i + DIGEST_BYTES] for i in range(starts[3], starts[4], DIGEST_BYTES)]
            ids = np.frombuffer(content[starts[4] :], np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False)
            splits = np.frombuffer(content[starts[2] : starts[3]], np.uint8)
            yield Block(lengths, left, splits, digests, ids, bool(group_ends)), 0
    raise DataError(f"{path}: expected a whole part, got a damaged one; remove it and build that part again")
