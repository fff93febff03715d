"""Build a shard folder: sources -> documents -> ids -> shards -> sidecars -> manifest.

1. Read the sources; drop empty documents and, on request, duplicates; choose each document's split by a hash of its text.
2. Tokenise chunks of documents in several processes, a bounded number at a time. Results come back in order.
3. Cut the ids into blocks and shards. When a shard is durable, the journal lists it.
4. Write lengths, token statistics and tokenizer, and the manifest last.

The folder's bytes depend on sources and settings alone. The same call continues a killed build: it reads the sources again, which is
cheap, and tokenises only the documents that no durable shard holds.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from data_shards.build.blocks import Chunk, tokenised, write_block
from data_shards.build.documents import Selection
from data_shards.build.folder import LOCK, finished, locked, refuse_other_settings
from data_shards.build.journal import Journal, SplitProgress
from data_shards.build.progress import BuildProgress, ProgressClock
from data_shards.build.settings import BuildSettings
from data_shards.build.sidecars import finish
from data_shards.errors import DataError
from data_shards.sources.files import total_bytes
from data_shards.storage.manifest import JOURNAL, SPLITS, Manifest, ShardEntry, smallest_dtype
from data_shards.storage.shard import Shard
from data_shards.storage.shard_writer import ShardWriters
from data_shards.tokenizer.fingerprint import plain_json, tokenizer_fingerprint
from data_shards.tokenizer.tokenizer import load_tokenizer, special_ids, vocabulary_size
from data_shards.tokenizer.workers import TokeniserPool


def build(
    settings: BuildSettings,
    folder: str | Path,
    processes: int | None = None,
    progress: Callable[[BuildProgress], None] | None = None,
) -> Manifest:
    """Build, continue or just return the shard folder of these settings; `processes` (default: all cores) never changes its bytes.

    Raises DataError when a source, the tokenizer or the folder is not as expected. Durable shards stay.
    """
    folder = Path(folder)
    with locked(folder, folder / LOCK, lambda: f"{_durable_shards(folder)} finished shards"):
        manifest = finished(folder, settings)
        if manifest is None:
            manifest = _Build(settings, folder, progress).run(processes or len(os.sched_getaffinity(0)))
        (folder / JOURNAL).unlink(missing_ok=True)
        return manifest


def _durable_shards(folder: Path) -> int:
    """The number of shards that the next call keeps."""
    journal = Journal.load(folder)
    return sum(len(state.shards) for state in journal.splits.values()) if journal else 0


class _Build:
    """The state of one build."""

    def __init__(self, settings: BuildSettings, folder: Path, progress: Callable[[BuildProgress], None] | None) -> None:
        self._settings = settings
        self._folder = folder
        self._tokenizer = load_tokenizer(settings.tokenizer)
        special_ids(self._tokenizer, settings.tokenizer)  # raises before any work is done
        self._size = vocabulary_size(self._tokenizer)
        self._fingerprint = tokenizer_fingerprint(self._tokenizer)
        self._dtype = smallest_dtype(self._size)
        self._journal = self._begin()
        self._shards = ShardWriters(folder, settings.block_tokens, settings.shard_tokens, self._size, self._record)
        self._selection = Selection(settings)
        self._clock = ProgressClock(progress, total_bytes(list(settings.sources)))

    def run(self, processes: int) -> Manifest:
        """Build everything that is not durable yet."""
        with self._shards:
            self._restore()
            with TokeniserPool(plain_json(self._tokenizer), self._dtype, processes) as pool:
                for block in tokenised(self._chunks(), pool, processes, self._clock):
                    write_block(self._shards, block)
                    self._report()
        self._report(last=True)
        built_from = self._selection.built_from(self._folder, self._shards)
        return finish(self._folder, self._shards.entries, self._shards.counts, self._tokenizer, built_from)

    def _begin(self) -> Journal:
        """The journal to continue from. Raises DataError for the journal of another build, or for a folder with other files."""
        dump = self._settings.model_dump(mode="json")
        journal = Journal.load(self._folder)
        if journal is None:
            strangers = sorted(path.name for path in self._folder.iterdir() if not path.name.startswith("."))
            if strangers:
                raise DataError(f"{self._folder}: expected an empty folder, got {', '.join(strangers[:3])}; choose another")
        if journal is None or not journal.splits:  # nothing is durable yet, so the settings may still change
            journal = Journal(settings=dump, tokenizer_fingerprint=self._fingerprint, splits={})
            journal.save(self._folder)
            return journal
        refuse_other_settings(self._folder, journal.settings, dump, "an unfinished build")
        before, now = {"tokenizer content": journal.tokenizer_fingerprint[:12]}, {"tokenizer content": self._fingerprint[:12]}
        refuse_other_settings(self._folder, before, now, "an unfinished build")
        return journal

    def _restore(self) -> None:
        """Verify the durable shards and count their ids; remove unfinished files of a killed build."""
        durable = {entry.name for state in self._journal.splits.values() for entry in state.shards}
        for path in [*self._folder.glob(".*.partial"), *self._folder.glob("*.tar")]:
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name not in durable:
                path.unlink()
        for split, state in self._journal.splits.items():
            writer = self._shards.splits[split]
            for entry in state.shards:
                shard = Shard.open(self._folder, entry, dtype=self._dtype)
                for first in range(0, entry.tokens, self._settings.block_tokens):
                    last = min(first + self._settings.block_tokens, entry.tokens)
                    writer.counts += np.bincount(shard.tokens(np.arange(first, last)), minlength=self._size)
            writer.entries.extend(state.shards)
            self._clock.durable_tokens += sum(entry.tokens for entry in state.shards)

    def _record(self, entry: ShardEntry) -> None:
        """Write to the journal that a shard is durable."""
        split = entry.name.split("-")[0]
        writer = self._shards.splits[split]
        state = SplitProgress(shards=tuple(writer.entries), consumed=writer.consumed, digest=writer.digest.hexdigest())
        self._journal = self._journal.model_copy(update={"splits": {**self._journal.splits, split: state}})
        self._journal.save(self._folder)

    def _chunks(self) -> Iterator[Chunk]:
        """The documents that are not yet durable, by the half megabyte."""
        chunk = Chunk()
        for text, split, digest in self._not_durable():
            chunk.add(text, split, digest)
            if chunk.is_full:
                yield chunk
                chunk = Chunk()
                self._report()
        if chunk.texts:
            yield chunk

    def _not_durable(self) -> Iterator[tuple[bytes, int, bytes]]:
        """The kept documents without those in durable shards. Raises DataError when the sources have changed since."""
        waiting: dict[str, SplitProgress] = {split: state for split, state in self._journal.splits.items() if state.consumed}
        for text, number, digest in self._selection.documents():
            split = SPLITS[number]
            state = waiting.get(split)
            if state is None:
                self._clock.start_fresh()
                yield text, number, digest
                continue
            writer = self._shards.splits[split]
            writer.consumed += 1
            writer.digest.update(digest)
            if writer.consumed == state.consumed:
                if writer.digest.hexdigest() != state.digest:
                    self._sources_changed()
                del waiting[split]
        if waiting:
            self._sources_changed()

    def _sources_changed(self) -> None:
        raise DataError(
            f"{self._folder}: expected the documents that its finished shards were built from, got others; "
            "restore the sources, or remove the folder and build again"
        )

    def _report(self, last: bool = False) -> None:
        shards = sum(map(len, self._shards.entries.values()))
        self._clock.report(self._selection.kept, shards, self._selection.counts.bytes_read, last)
