"""The documents of a build: split, digest, duplicates and the last document. Builds, parts and merges share these rules."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from data_shards.build.settings import BuildSettings
from data_shards.errors import DataError
from data_shards.sources.sources import SourceCounts, documents
from data_shards.storage.manifest import SPLITS, BuiltFrom
from data_shards.storage.shard_writer import ShardWriters

DIGEST_BYTES = 16
EMPTY = 255  # in place of a split's number: the document has no text


class SplitRule:
    """The split of a document depends on seed and text alone."""

    def __init__(self, settings: BuildSettings) -> None:
        self._threshold = int(settings.heldout * 2.0**64)
        self._salt = settings.seed.to_bytes(8, "little")

    def __call__(self, text: bytes) -> tuple[int, bytes]:
        """UTF-8 text -> (number of its split in SPLITS, or EMPTY; digest of seed and text, DIGEST_BYTES long)."""
        if not text.strip():
            return EMPTY, bytes(DIGEST_BYTES)
        digest = hashlib.blake2b(text, digest_size=DIGEST_BYTES, salt=self._salt).digest()
        return SPLITS.index("heldout" if int.from_bytes(digest[:8], "little") < self._threshold else "train"), digest


class Selection:
    """The choice of documents in their order: empty ones and, on request, duplicates are dropped; it ends at max_documents."""

    def __init__(self, settings: BuildSettings) -> None:
        self.read = self.empty = self.duplicate = self.kept = 0
        self.counts = SourceCounts()
        self._settings = settings
        self._rule = SplitRule(settings)
        self._seen: set[bytes] = set()

    @property
    def complete(self) -> bool:
        """True when max_documents is reached."""
        return self.kept == self._settings.max_documents

    def keeps(self, split: int, digest: bytes) -> bool:
        """Count the next document; True if it is kept."""
        self.read += 1
        if split == EMPTY:
            self.empty += 1
            return False
        if self._settings.drop_duplicates:
            if digest in self._seen:
                self.duplicate += 1
                return False
            self._seen.add(digest)
        self.kept += 1
        return True

    def documents(self) -> Iterator[tuple[bytes, int, bytes]]:
        """The kept documents of the sources: (text, number of the split, digest). Nothing is read after the last one."""
        for source in self._settings.sources:
            for document in documents(source, self.counts):
                text = document.text.encode()
                split, digest = self._rule(text)
                if self.keeps(split, digest):
                    yield text, split, digest
                    if self.complete:
                        return

    def built_from(self, folder: Path, shards: ShardWriters) -> BuiltFrom:
        """The record of sources and dropped documents. Raises DataError when there is no document to train on."""
        entries = shards.entries
        if not entries["train"]:
            got = f"{self.read} documents, {self.empty} of them empty, {sum(entry.documents for entry in entries['heldout'])} held out"
            raise DataError(f"{folder}: expected a document with text to train on, got {got}; check sources, column and heldout")
        written = sum(entry.documents for split in entries.values() for entry in split)
        return BuiltFrom(
            settings=self._settings.model_dump(mode="json"),
            documents_read=self.read,
            empty=self.empty + self.kept - written,
            duplicate=self.duplicate,
            invalid=self.counts.invalid,
        )
