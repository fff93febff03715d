"""Check that a shard folder keeps every promise of its manifest, or name the first shard and key that does not.

The split of a document is not checked, because that needs the text.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from data_shards.corpus import Corpus
from data_shards.errors import DataError
from data_shards.storage.lengths import lengths_name
from data_shards.storage.location import Location
from data_shards.storage.manifest import TOKENIZER, Manifest, ShardEntry
from data_shards.storage.shard import Shard
from data_shards.storage.token_statistics import VOCABULARY
from data_shards.tokenizer.fingerprint import tokenizer_fingerprint
from data_shards.tokenizer.tokenizer import is_continuation, is_special, special_ids, vocabulary_size

ADVICE = "bring the file back, or build the shards again"


@dataclass(frozen=True)
class VerifyReport:
    """Counts of what was read and is right."""

    shards: int
    blocks: int
    documents: int
    tokens: int
    bytes: int
    sidecars: int


def verify(folder: str | Path | Corpus, cache_folder: str | Path | None = None) -> VerifyReport:
    """Read a whole folder, URL or open corpus and check it. Raises DataError on the first broken promise."""
    corpus = Corpus.open(folder, cache_folder)
    location, manifest = corpus.location, corpus.manifest
    _no_strays(location, manifest)
    for name in manifest.sidecars:
        manifest.sidecar(location, name)
    _tokenizer(corpus)
    blocks = 0
    counts = np.zeros(manifest.vocabulary_size, np.int64)
    for split, entries in manifest.splits.items():
        lengths = corpus.lengths(split) if entries else np.zeros(0, np.uint32)
        first = 0
        for number, entry in enumerate(entries):
            if entry.name != f"{split}-{number:06d}.tar":
                raise DataError(
                    f"{location.where('manifest.json')}: expected {split}-{number:06d}.tar, got {entry.name}; build the shards again"
                )
            shard_counts = _shard(location, manifest, entry, number, lengths[first : first + entry.documents])
            counts += shard_counts if split == "train" else 0
            first += entry.documents
            blocks += len(Shard.open(location, entry, verify=False, dtype=manifest.dtype).blocks)
    stored = corpus.token_statistics.counts
    if not np.array_equal(counts.astype(np.uint64), stored):
        token = int(np.flatnonzero(counts.astype(np.uint64) != stored)[0])
        got = f"{stored[token]}; {ADVICE}"
        raise DataError(f"{location.where(VOCABULARY)}: expected {counts[token]} times id {token} as in the train split, got {got}")
    shards = [entry for entries in manifest.splits.values() for entry in entries]
    documents, tokens = sum(shard.documents for shard in shards), sum(shard.tokens for shard in shards)
    size = sum(shard.bytes for shard in shards) + sum(sidecar.bytes for sidecar in manifest.sidecars.values())
    return VerifyReport(len(shards), blocks, documents, tokens, size, len(manifest.sidecars))


def _no_strays(location: Location, manifest: Manifest) -> None:
    """Check that the manifest lists every shard in the folder. Raises DataError naming the first other one."""
    if location.is_remote:
        return
    known = {entry.name for entries in manifest.splits.values() for entry in entries}
    strays = sorted(path.name for path in Path(location.root).glob("*.tar") if path.name not in known)
    if strays:
        raise DataError(f"{location.where(strays[0])}: expected only the manifest's {len(known)} shards, got one more; remove it")


def _tokenizer(corpus: Corpus) -> None:
    """Check that the folder's tokenizer is the one that made the ids. Raises DataError when it is another."""
    tokenizer, manifest = corpus.tokenizer, corpus.manifest
    where = corpus.location.where(TOKENIZER)
    fingerprint = tokenizer_fingerprint(tokenizer)
    if fingerprint != manifest.tokenizer_fingerprint:
        raise DataError(f"{where}: expected the tokenizer {manifest.tokenizer_fingerprint[:12]}…, got {fingerprint[:12]}…; {ADVICE}")
    promised = {name: getattr(manifest, name) for name in ("cls_id", "sep_id", "pad_id", "mask_id", "vocabulary_size")}
    actual = {**vars(special_ids(tokenizer, where)), "vocabulary_size": vocabulary_size(tokenizer)}
    if actual != promised:
        raise DataError(f"{where}: expected {promised}, got {actual}; {ADVICE}")
    for name, marks in (("is_special", is_special(tokenizer)), ("is_continuation", is_continuation(tokenizer))):
        if not np.array_equal(marks, getattr(corpus.token_statistics, name)):
            raise DataError(f"{corpus.location.where(VOCABULARY)}: expected {name} as the tokenizer has it, got other ids; {ADVICE}")


def _shard(location: Location, manifest: Manifest, entry: ShardEntry, number: int, lengths: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Check one shard; the counts of its ids, int64 [V]. Raises DataError naming shard and key."""
    shard = Shard.open(location, entry, dtype=manifest.dtype)
    where = location.where(entry.name)
    counts = np.zeros(manifest.vocabulary_size, np.int64)
    token = 0
    for position, block in enumerate(shard.blocks):
        key = f"{number:06d}-{position:05d}"
        if block.key != key:
            raise DataError(f"{where}: expected key {key}, got {block.key}; build the shards again")
        fault = shard.fault(block)
        if fault:
            raise DataError(f"{where}, key {key}: expected the tokens that were written, got {fault}; {ADVICE}")
        ids = shard.tokens(np.arange(token, token + block.tokens))
        if len(ids) and ids.max() >= manifest.vocabulary_size:
            raise DataError(f"{where}, key {key}: expected ids below {manifest.vocabulary_size}, got {ids.max()}; build the shards again")
        counts += np.bincount(ids, minlength=len(counts))
        token += block.tokens
    if not shard.lengths.all():
        raise DataError(f"{where}: expected documents with tokens, got one without; build the shards again")
    if not np.array_equal(shard.lengths, lengths):
        raise DataError(
            f"{location.where(lengths_name(entry.name.split('-')[0]))}: expected the lengths in {entry.name}, got others; {ADVICE}"
        )
    return counts
