"""Build a shard folder: sources -> documents -> ids -> shards -> sidecars -> manifest.

1. Read the sources; drop empty documents and, on request, duplicates; deal each document to a split by a hash of its text.
2. Tokenise chunks of them in several processes, a bounded number at a time; take the results in order.
3. Cut the ids into blocks and shards; each shard becomes durable whole, and then the journal says so.
4. Write lengths, vocabulary and tokenizer, and the manifest last.

The folder's bytes depend on sources and settings alone. A killed build goes on with the same call: it reads the sources
again, which is cheap, and tokenises only what no durable shard holds.
"""

import errno
import os
import shutil
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import numpy as np
from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_shards.build.documents import Kept, Selection
from data_shards.build.journal import Journal, SplitProgress, refuse_other_settings
from data_shards.build.progress import BuildProgress, ProgressClock
from data_shards.build.sidecars import finish
from data_shards.errors import DataError
from data_shards.sources.files import total_bytes
from data_shards.sources.settings import SourceSettings
from data_shards.storage.manifest import (
    JOURNAL,
    MANIFEST,
    SPLITS,
    BuiltFrom,
    Manifest,
    ShardEntry,
    plain_json,
    smallest_dtype,
    tokenizer_fingerprint,
)
from data_shards.storage.shard import Shard
from data_shards.storage.shard_writer import SplitWriter
from data_shards.tokenizer.tokenizer import load_tokenizer, special_ids, vocabulary_size
from data_shards.tokenizer.workers import Ids, Lengths, TokeniserPool
from stillhouse.errors import one_line

CHUNK_BYTES = 1 << 19
CHUNK_DOCUMENTS = 4096
CHUNKS_PER_PROCESS = 3
LOCK = ".build.lock"
Positive = Annotated[int, Field(gt=0)]


class BuildSettings(BaseModel):
    """What decides a shard folder's bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    sources: Annotated[tuple[SourceSettings, ...], Field(min_length=1)]
    tokenizer: str
    """A folder or hub name."""
    heldout: Annotated[float, Field(ge=0, lt=1)] = 0.01
    """Share of documents kept for evaluation, chosen by a hash of seed and text."""
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 1
    drop_duplicates: bool = False
    """Drop documents whose text has come before. Costs some 100 bytes of memory a document."""
    shard_tokens: Positive = 1 << 24
    block_tokens: Positive = 1 << 20
    max_documents: Positive | None = None
    """Stop after so many documents that are neither empty nor dropped."""

    @model_validator(mode="after")
    def _sizes(self) -> "BuildSettings":
        if self.block_tokens > self.shard_tokens:
            raise ValueError(
                f"expected block_tokens of at most shard_tokens, got {self.block_tokens} and {self.shard_tokens}; lower the first"
            )
        return self


def build(
    settings: BuildSettings,
    folder: str | Path,
    processes: int | None = None,
    progress: Callable[[BuildProgress], None] | None = None,
) -> Manifest:
    """Build, continue or just return the shard folder of these settings; `processes` (default: all cores) never changes its bytes.

    Raises DataError when a source, the tokenizer or the folder is not as expected; durable shards stay where they are.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / LOCK, timeout=0):
            if (folder / MANIFEST).is_file():
                manifest = Manifest.load(folder)
                refuse_other_settings(folder, manifest.built_from.settings, settings.model_dump(mode="json"), "shards built")
                (folder / JOURNAL).unlink(missing_ok=True)
                return manifest
            return _Build(settings, folder, progress).run(processes or len(os.sched_getaffinity(0)))
    except Timeout:
        raise DataError(f"{folder}: expected no other build at work, got one that holds {LOCK}; wait for it") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            journal = Journal.load(folder)
            kept = sum(len(state.shards) for state in journal.splits.values()) if journal else 0
            raise DataError(
                f"{folder}: expected room on the disk, got {error.strerror}; free some and build again ({kept} finished shards are kept)"
            ) from None
        raise DataError(
            f"{folder}: expected a folder that can be written, got {one_line(error)}; choose another, or its permissions"
        ) from None


class _Build:
    """One build's working state."""

    def __init__(self, settings: BuildSettings, folder: Path, progress: Callable[[BuildProgress], None] | None) -> None:
        self._settings = settings
        self._folder = folder
        self._tokenizer = load_tokenizer(settings.tokenizer)
        special_ids(self._tokenizer, settings.tokenizer)  # refuses before any work is done
        self._size = vocabulary_size(self._tokenizer)
        self._fingerprint = tokenizer_fingerprint(self._tokenizer)
        self._dtype = smallest_dtype(self._size)
        self._journal = self._begin()
        sizes = (settings.block_tokens, settings.shard_tokens, self._size)
        self._writers = {split: SplitWriter(folder, split, *sizes, self._sealed) for split in SPLITS}
        self._selection = Selection(settings.sources, settings.heldout, settings.seed, settings.drop_duplicates, settings.max_documents)
        self._clock = ProgressClock(progress, total_bytes(list(settings.sources)))

    def run(self, processes: int) -> Manifest:
        """The whole of it."""
        try:
            self._restore()
            with TokeniserPool(plain_json(self._tokenizer), self._dtype, processes) as pool:
                self._tokenise(pool, processes)
            for writer in self._writers.values():
                writer.finish()
        except BaseException:
            for writer in self._writers.values():
                with suppress(OSError):
                    writer.abandon()
            raise
        self._tell(last=True)
        return self._finish()

    def _begin(self) -> Journal:
        """The journal to go on from. Raises DataError when it is another build's, or the folder holds files of none."""
        dump = self._settings.model_dump(mode="json")
        journal = Journal.load(self._folder)
        if journal is None:
            strangers = sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))
            if strangers:
                raise DataError(f"{self._folder}: expected an empty folder, got {', '.join(strangers[:3])}; choose another")
        if journal is None or not journal.splits:  # nothing is durable yet: what a first try got wrong may be mended here
            journal = Journal(settings=dump, tokenizer_fingerprint=self._fingerprint, splits={})
            journal.save(self._folder)
            return journal
        refuse_other_settings(self._folder, journal.settings, dump, "an unfinished build")
        before, now = {"tokenizer content": journal.tokenizer_fingerprint[:12]}, {"tokenizer content": self._fingerprint[:12]}
        refuse_other_settings(self._folder, before, now, "an unfinished build")
        return journal

    def _restore(self) -> None:
        """Take up the durable shards, each verified; remove what a killed build left half done."""
        durable = {entry.name for state in self._journal.splits.values() for entry in state.shards}
        for path in [*self._folder.glob(".*.partial"), *self._folder.glob("*.tar")]:
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in durable:
                path.unlink()
        for split, state in self._journal.splits.items():
            writer = self._writers[split]
            for entry in state.shards:
                shard = Shard.open(self._folder, entry, dtype=self._dtype)
                for first in range(0, entry.tokens, self._settings.block_tokens):
                    last = min(first + self._settings.block_tokens, entry.tokens)
                    writer.counts += np.bincount(shard.tokens(np.arange(first, last)), minlength=self._size)
            writer.entries.extend(state.shards)
            self._clock.durable_tokens += sum(entry.tokens for entry in state.shards)

    def _sealed(self, entry: ShardEntry) -> None:
        """Write down that a shard is durable."""
        split = entry.name.split("-")[0]
        writer = self._writers[split]
        state = SplitProgress(shards=tuple(writer.entries), consumed=writer.consumed, digest=writer.digest.hexdigest())
        self._journal = self._journal.model_copy(update={"splits": {**self._journal.splits, split: state}})
        self._journal.save(self._folder)

    def _tokenise(self, pool: TokeniserPool, processes: int) -> None:
        """Read, tokenise and write, with a bounded number of chunks under way."""
        under_way: deque[tuple[list[Kept], Future[tuple[Ids, Lengths]]]] = deque()
        for chunk in self._chunks():
            under_way.append((chunk, pool.submit([document.text for document in chunk])))
            while len(under_way) > CHUNKS_PER_PROCESS * processes or (under_way and under_way[0][1].done()):
                self._write(*under_way.popleft())
            self._tell()
        while under_way:
            self._write(*under_way.popleft())
            self._tell()

    def _write(self, chunk: list[Kept], result: Future[tuple[Ids, Lengths]]) -> None:
        ids, lengths = result.result()
        self._clock.fresh_tokens += len(ids)
        for split, writer in self._writers.items():
            chosen = np.fromiter((document.split == split for document in chunk), np.bool_, len(chunk))
            if chosen.any():
                digests = [document.digest for document, keep in zip(chunk, chosen, strict=True) if keep]
                writer.add(ids[np.repeat(chosen, lengths)], lengths[chosen], digests)

    def _chunks(self) -> Iterator[list[Kept]]:
        """The documents that are not yet durable, some half a megabyte at a time."""
        chunk: list[Kept] = []
        size = 0
        for document in self._not_durable():
            chunk.append(document)
            size += len(document.text)
            if size >= CHUNK_BYTES or len(chunk) >= CHUNK_DOCUMENTS:
                yield chunk
                chunk, size = [], 0
        if chunk:
            yield chunk

    def _not_durable(self) -> Iterator[Kept]:
        """The kept documents without those that stand in durable shards. Raises DataError when those have changed in the sources."""
        waiting: dict[str, SplitProgress] = {split: state for split, state in self._journal.splits.items() if state.consumed}
        for document in self._selection.kept():
            state = waiting.get(document.split)
            if state is None:
                self._clock.fresh(self._selection.source_counts.bytes_read)
                yield document
                continue
            writer = self._writers[document.split]
            writer.consumed += 1
            writer.digest.update(document.digest)
            if writer.consumed == state.consumed:
                if writer.digest.hexdigest() != state.digest:
                    self._sources_changed()
                del waiting[document.split]
        if waiting:
            self._sources_changed()

    def _sources_changed(self) -> None:
        raise DataError(
            f"{self._folder}: expected the documents that its finished shards were built from, got others; "
            "restore the sources, or remove the folder and build again"
        )

    def _tell(self, last: bool = False) -> None:
        shards = sum(len(writer.entries) for writer in self._writers.values())
        self._clock.tell(self._selection.count, shards, self._selection.source_counts.bytes_read, last)

    def _finish(self) -> Manifest:
        """Sidecars, then the manifest, then the journal's end. Raises DataError when there is nothing to train on."""
        entries = {split: tuple(writer.entries) for split, writer in self._writers.items()}
        if not entries["train"]:
            heldout = sum(entry.documents for entry in entries["heldout"])
            got = f"{self._selection.read} documents, {self._selection.empty} of them empty, {heldout} held out"
            raise DataError(f"{self._folder}: expected a document with text to train on, got {got}; check sources, column and heldout")
        written = sum(entry.documents for split in entries.values() for entry in split)
        built_from = BuiltFrom(
            settings=self._settings.model_dump(mode="json"),
            documents_read=self._selection.read,
            empty=self._selection.empty + self._selection.count - written,
            duplicate=self._selection.duplicate,
            invalid=self._selection.source_counts.invalid,
        )
        manifest = finish(self._folder, entries, self._writers["train"].counts, self._tokenizer, built_from)
        (self._folder / JOURNAL).unlink()
        return manifest
