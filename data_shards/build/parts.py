"""A build in parts, for many machines: each tokenises its share, one seals them into the folder that a single build would have made.

1. The sources' files are the items; where there are fewer files than parts, each is cut into stripes (every m-th group of documents).
   Items are dealt to parts by size, a function of the sources and the number of parts alone.
2. A part reads its items and writes, for each, what the corpus needs of a document: split, digest, ids, the tokens of each.
3. `data_shards/build/merge.py` reads the items in the order of the sources.

`FOLDER/.parts/` holds an item under its name once it is whole. Nothing is pickled.
"""

import hashlib
import os
import struct
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from data_shards.build.build import CHUNK_BYTES, CHUNK_DOCUMENTS, CHUNKS_PER_PROCESS, BuildSettings
from data_shards.build.documents import DIGEST_BYTES
from data_shards.build.journal import refuse_other_settings
from data_shards.build.progress import BuildProgress, ProgressClock
from data_shards.errors import DataError
from data_shards.sources.files import find_files
from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import SourceCounts, documents
from data_shards.storage.location import is_url
from data_shards.storage.manifest import MANIFEST, SPLITS, Manifest, plain_json, smallest_dtype, tokenizer_fingerprint
from data_shards.tokenizer.tokenizer import load_tokenizer, special_ids, vocabulary_size
from data_shards.tokenizer.workers import Ids, Lengths, TokeniserPool
from stillhouse.errors import one_line

PARTS = ".parts"
FRAME = struct.Struct("<QQQQI")  # documents, tokens, documents left out after the last, whether a group ends, crc32 of what follows
END = (1 << 64) - 1
EMPTY = 255  # what stands for the split of a document without text


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


@dataclass
class Block:
    """Consecutive documents of an item: tokens, split (its number, or EMPTY), digest, and how many were left out before each."""

    lengths: NDArray[np.uint32]
    left_out: NDArray[np.uint32]
    splits: NDArray[np.uint8]
    digests: list[bytes]
    ids: Ids


@dataclass
class Gathered:
    """Documents on their way to the tokeniser; those without text are b""."""

    texts: list[bytes]
    left_out: list[int]
    splits: list[int]
    digests: list[bytes]
    group_ends: bool = False


def items(settings: BuildSettings, parts: int) -> list[list[Item]]:
    """Of each part, its items. Raises DataError when a source is not there."""
    found = []
    for source in settings.sources:
        if source.kind == "dataset":
            found.append((source, 0))
            continue
        for path, kind in find_files(source).files:
            one = source.model_copy(update={"path": path, "kind": kind})
            found.append((one, 0 if is_url(path) else Path(path).stat().st_size))
    stripes = -(-parts // len(found)) if len(found) < parts else 1
    cut = [Item(number, source, s, stripes, size // stripes) for number, (source, size) in enumerate(found) for s in range(stripes)]
    dealt: list[list[Item]] = [[] for _ in range(parts)]
    loads = [(0, 0, part) for part in range(parts)]  # bytes, items, part: the least laden gets the largest that is left
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
    """Tokenise part `part` (0 .. parts - 1) of the corpus into FOLDER/.parts; what an earlier call has finished is kept.

    Raises DataError as `build` does.
    """
    folder = Path(folder)
    if (folder / MANIFEST).is_file():
        refuse_other_settings(folder, Manifest.load(folder).built_from.settings, settings.model_dump(mode="json"), "shards built")
        return
    tokenizer = load_tokenizer(settings.tokenizer)
    special_ids(tokenizer, settings.tokenizer)
    dtype = smallest_dtype(vocabulary_size(tokenizer))
    processes = processes or len(os.sched_getaffinity(0))
    share = items(settings, parts)[part]
    clock = ProgressClock(progress, sum(item.bytes for item in share) or None)
    place = place_of(folder, settings, tokenizer, parts)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with FileLock(place / f".{part}.lock", timeout=0), TokeniserPool(plain_json(tokenizer), dtype, processes) as pool:
            for item in share:
                if not (place / item.name).is_file():
                    _write_item(item, settings, place, pool, processes, clock)
    except Timeout:
        raise DataError(f"{place}: expected no other process at work on part {part}, got one; wait for it") from None
    except OSError as error:
        raise DataError(f"{folder}: expected a folder that can be written, got {one_line(error)}; choose another, or free space") from None


def place_of(folder: Path, settings: BuildSettings, tokenizer: Any, parts: int) -> Path:
    """Where the parts of these settings, this tokenizer and this number of parts lie: others never mix with them."""
    decisive = f"{settings.model_dump_json(exclude={'drop_duplicates', 'max_documents'})} {tokenizer_fingerprint(tokenizer)} {parts}"
    return folder / PARTS / hashlib.sha256(decisive.encode()).hexdigest()[:16]


def _write_item(item: Item, settings: BuildSettings, place: Path, pool: TokeniserPool, processes: int, clock: ProgressClock) -> None:
    under_way: deque[tuple[Gathered, Future[tuple[Ids, Lengths]]]] = deque()
    partial = place / f".{item.name}.partial"
    counts = SourceCounts()
    clock.fresh(0)
    left_out = [0]
    with open(partial, "wb") as file:
        for gathered in _gather(item, settings, counts, left_out):
            under_way.append((gathered, pool.submit(gathered.texts)))
            while len(under_way) > CHUNKS_PER_PROCESS * processes:
                clock.fresh_tokens += _write_block(file, *under_way.popleft())
            clock.tell(0, 0, counts.bytes_read)
        while under_way:
            clock.fresh_tokens += _write_block(file, *under_way.popleft())
        file.write(FRAME.pack(END, 0, left_out[0], 1, 0))
        file.flush()
        os.fsync(file.fileno())
    partial.replace(place / item.name)


def _gather(item: Item, settings: BuildSettings, counts: SourceCounts, left_out: list[int]) -> Iterator[Gathered]:
    """The stripe's documents by the half megabyte. left_out[0]: at the end, documents left out after the last."""
    threshold, salt = int(settings.heldout * 2.0**64), settings.seed.to_bytes(8, "little")
    gathered, size, invalid = Gathered([], [], [], []), 0, 0
    for number, document in enumerate(documents(item.source, counts)):
        before, invalid = counts.invalid - invalid, counts.invalid
        group, place = divmod(number, CHUNK_DOCUMENTS)
        if group % item.stripes != item.stripe:
            continue
        text = document.text.encode()
        digest, split = b"\0" * DIGEST_BYTES, EMPTY
        if text.strip():
            digest = hashlib.blake2b(text, digest_size=DIGEST_BYTES, salt=salt).digest()
            split = SPLITS.index("heldout" if int.from_bytes(digest[:8], "little") < threshold else "train")
        gathered.texts.append(text if split != EMPTY else b"")
        gathered.left_out.append(before)
        gathered.splits.append(split)
        gathered.digests.append(digest)
        size += len(text)
        gathered.group_ends = place == CHUNK_DOCUMENTS - 1
        if size >= CHUNK_BYTES or gathered.group_ends:
            yield gathered
            gathered, size = Gathered([], [], [], []), 0
    if gathered.texts:
        yield gathered
    left_out[0] = counts.invalid - invalid


def _write_block(file: BinaryIO, gathered: Gathered, result: Future[tuple[Ids, Lengths]]) -> int:
    ids, lengths = result.result()
    content = b"".join(
        [
            lengths.astype("<u4").tobytes(),
            np.asarray(gathered.left_out, "<u4").tobytes(),
            bytes(gathered.splits),
            b"".join(gathered.digests),
            ids.astype(ids.dtype.newbyteorder("<"), copy=False).tobytes(),
        ]
    )
    file.write(FRAME.pack(len(lengths), len(ids), 0, gathered.group_ends, zlib.crc32(content)) + content)
    return len(ids)


def read_item(path: Path, dtype: str) -> Iterator[tuple[Block | None, int, bool]]:
    """(block, 0, whether a group ends with it); last (None, documents left out at the end, True). Raises DataError on damage."""
    width = np.dtype(dtype).itemsize
    with path.open("rb") as file:
        while True:
            frame = file.read(FRAME.size)
            if len(frame) != FRAME.size:
                break
            count, tokens, left_out, group_ends, crc32 = FRAME.unpack(frame)
            if count == END:
                yield None, left_out, True
                return
            size = count * (9 + DIGEST_BYTES) + tokens * width
            content = file.read(size) if size <= path.stat().st_size else b""
            if len(content) != size or zlib.crc32(content) != crc32:
                break
            at = [0, 4 * count, 8 * count, 9 * count, (9 + DIGEST_BYTES) * count]
            lengths, left = (np.frombuffer(content[first : first + 4 * count], "<u4") for first in at[:2])
            digests = [content[i : i + DIGEST_BYTES] for i in range(at[3], at[4], DIGEST_BYTES)]
            ids = np.frombuffer(content[at[4] :], np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False)
            yield Block(lengths, left, np.frombuffer(content[at[2] : at[3]], np.uint8), digests, ids), 0, bool(group_ends)
    raise DataError(f"{path}: expected a whole part, got a damaged one; remove it and build that part again")
