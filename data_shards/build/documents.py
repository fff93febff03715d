"""Which documents a corpus keeps, and in which split each stands: a function of the text and of what came before it."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import SourceCounts, documents

DIGEST_BYTES = 16


@dataclass(frozen=True)
class Kept:
    """A document on its way: UTF-8 text, digest of seed and text, and its split."""

    text: bytes
    digest: bytes
    split: str


class Selection:
    """One walk over the sources; the counts grow while kept() is read."""

    def __init__(
        self, sources: tuple[SourceSettings, ...], heldout: float, seed: int, drop_duplicates: bool, max_documents: int | None
    ) -> None:
        self.read = self.empty = self.duplicate = self.count = 0
        self.source_counts = SourceCounts()
        self._sources = sources
        self._threshold = int(heldout * 2.0**64)
        self._salt = seed.to_bytes(8, "little")
        self._drop_duplicates = drop_duplicates
        self._max_documents = max_documents

    def kept(self) -> Iterator[Kept]:
        """The documents that are neither empty nor dropped. A text's split depends on seed and text alone."""
        seen: set[bytes] = set()
        for source in self._sources:
            for document in documents(source, self.source_counts):
                self.read += 1
                text = document.text.encode()
                if not text.strip():
                    self.empty += 1
                    continue
                digest = hashlib.blake2b(text, digest_size=DIGEST_BYTES, salt=self._salt).digest()
                if self._drop_duplicates:
                    if digest in seen:
                        self.duplicate += 1
                        continue
                    seen.add(digest)
                self.count += 1
                yield Kept(text, digest, "heldout" if int.from_bytes(digest[:8], "little") < self._threshold else "train")
                if self.count == self._max_documents:
                    return
