"""The sidecars of a corpus: lengths, token statistics, tokenizer, and last the manifest. They follow from shards and tokenizer alone."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_shards.storage.lengths import lengths_name
from data_shards.storage.manifest import (
    MANIFEST,
    TOKENIZER,
    BuiltFrom,
    Manifest,
    ShardEntry,
    SidecarEntry,
    smallest_dtype,
)
from data_shards.storage.shard import LENGTHS, Shard
from data_shards.storage.tar_format import npy_header
from data_shards.storage.token_statistics import VOCABULARY, TokenStatistics
from data_shards.tokenizer.fingerprint import tokenizer_fingerprint
from data_shards.tokenizer.tokenizer import is_continuation, is_special, special_ids
from stillhouse.files import sha256_of_file, sync_path, write_atomically

Entries = Mapping[str, tuple[ShardEntry, ...]]


def finish(folder: Path, entries: Entries, counts: NDArray[np.int64], tokenizer: Any, built_from: BuiltFrom) -> Manifest:
    """Write the sidecars of a folder of durable shards, and the manifest last.

    counts [V]: the count of each id in the train split.
    """
    dtype = smallest_dtype(len(counts))
    special = special_ids(tokenizer)
    for split, shards in entries.items():
        if shards:
            _write_lengths(folder, split, shards, dtype)
    statistics = TokenStatistics(counts.astype(np.uint64), is_special(tokenizer), is_continuation(tokenizer), special.mask_id)
    write_atomically(folder / VOCABULARY, statistics.content())
    _write_tokenizer(folder, tokenizer)
    manifest = Manifest.model_validate(
        {
            "splits": entries,
            "tokenizer_fingerprint": tokenizer_fingerprint(tokenizer),
            "vocabulary_size": len(counts),
            "dtype": dtype,
            **vars(special),
            "sidecars": _sidecars(folder, entries),
            "built_from": built_from,
        }
    )
    write_atomically(folder / MANIFEST, manifest.content())
    return manifest


def _write_tokenizer(folder: Path, tokenizer: Any) -> None:
    partial = folder / f".{TOKENIZER}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(partial)
    for path in partial.iterdir():
        with open(path, "rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(folder / TOKENIZER, ignore_errors=True)
    partial.replace(folder / TOKENIZER)
    sync_path(folder)


def _sidecars(folder: Path, entries: Entries) -> dict[str, SidecarEntry]:
    """Size and sha256 of each sidecar file, by name."""
    names = [VOCABULARY, *(lengths_name(split) for split, shards in entries.items() if shards)]
    names += [f"{TOKENIZER}/{path.name}" for path in sorted((folder / TOKENIZER).iterdir())]
    return {name: SidecarEntry(bytes=(folder / name).stat().st_size, sha256=sha256_of_file(folder / name)) for name in names}


def _write_lengths(folder: Path, split: str, shards: tuple[ShardEntry, ...], dtype: str) -> None:
    """Write the lengths of a split, one shard at a time, so that the lengths of one shard are in memory."""
    path = folder / lengths_name(split)
    partial = path.with_name(f".{path.name}.partial")
    with open(partial, "wb") as file:
        file.write(npy_header(sum(entry.documents for entry in shards), LENGTHS))
        for entry in shards:
            file.write(Shard.open(folder, entry, verify=False, dtype=dtype).lengths.tobytes())
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
    sync_path(folder)
