"""An open shard folder: the manifest is read once; token statistics, lengths and tokenizer are read at their first use and kept."""

import tempfile
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from data_shards.storage.lengths import read_lengths
from data_shards.storage.location import Location
from data_shards.storage.manifest import TOKENIZER, Manifest
from data_shards.storage.token_statistics import TokenStatistics
from data_shards.tokenizer.tokenizer import load_tokenizer
from stillhouse.files import write_atomically

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Corpus:
    """A folder or URL of shards. Open it once per process and hand it to streams, checks and reports.

    Callers share the arrays and the tokenizer and must not change them.
    """

    def __init__(self, location: Location, manifest: Manifest) -> None:
        self.location = location
        self.manifest = manifest
        self._lengths: dict[str, NDArray[np.uint32]] = {}

    @classmethod
    def open(cls, folder: "str | Path | Corpus", cache_folder: str | Path | None = None) -> "Corpus":
        """The corpus of a folder or URL; a corpus is returned as it is. cache_folder: for copies of remote files.

        Raises DataError when there is no manifest, or when it is not one.
        """
        if isinstance(folder, Corpus):
            return folder
        location = Location.of(folder, cache_folder)
        return cls(location, Manifest.load(location))

    @cached_property
    def token_statistics(self) -> TokenStatistics:
        """Counts and marks of each token id. Raises DataError when the file does not keep the manifest's promise."""
        return TokenStatistics.load(self.location, self.manifest)

    def lengths(self, split: str) -> NDArray[np.uint32]:
        """Tokens of each document of a split, in order: uint32 [documents]. Raises DataError for a damaged file."""
        if split not in self._lengths:
            self._lengths[split] = read_lengths(self.location, self.manifest, split)
        return self._lengths[split]

    @cached_property
    def tokenizer(self) -> "PreTrainedTokenizerBase":
        """The tokenizer that made the token ids. Raises DataError when its files are not those of the manifest."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self._tokenizer_files.items():
                (Path(folder) / name).write_bytes(content)
            return load_tokenizer(folder)

    def tokenizer_folder(self) -> Path:
        """A folder of this machine with the tokenizer: the corpus's own, or a copy in the cache folder of a remote corpus."""
        if not self.location.is_remote:
            return Path(self.location.root) / TOKENIZER
        files = self._tokenizer_files
        folder = Path(self.location.cache_folder or "") / f"{TOKENIZER}-{self.manifest.tokenizer_fingerprint[:16]}"
        folder.mkdir(exist_ok=True)
        for name, content in files.items():
            write_atomically(folder / name, content)
        return folder

    @cached_property
    def _tokenizer_files(self) -> dict[str, bytes]:
        """Content of the tokenizer's files by name, verified."""
        names = [name for name in self.manifest.sidecars if name.startswith(f"{TOKENIZER}/")]
        return {Path(name).name: self.manifest.sidecar(self.location, name) for name in names}
