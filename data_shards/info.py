"""What a shard folder holds, at a glance: counts, lengths, how much of the vocabulary it uses, and samples of its text."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from data_shards.storage.location import Location
from data_shards.storage.manifest import BuiltFrom, Manifest
from data_shards.storage.open_shards import Shelf, offsets
from data_shards.storage.token_statistics import Vocabulary
from data_shards.stream.bucketed import read_lengths
from data_shards.tokenizer.tokenizer import shards_tokenizer

PERCENTILES = (0, 5, 25, 50, 75, 95, 100)
SAMPLE_TOKENS = 64


@dataclass(frozen=True)
class SplitInfo:
    """One split. length_percentiles: tokens of a document, by percent. samples: the beginnings of some documents, decoded."""

    shards: int
    documents: int
    tokens: int
    bytes: int
    mean_length: float
    length_percentiles: dict[int, int]
    samples: tuple[str, ...]


@dataclass(frozen=True)
class Info:
    """One folder. vocabulary_used: ids that stand in the train split at least once; unknown_share: of its tokens, those that are [UNK]."""

    splits: dict[str, SplitInfo]
    vocabulary_size: int
    vocabulary_used: int
    unknown_share: float
    tokenizer_fingerprint: str
    fingerprint: str
    built_from: BuiltFrom


def info(folder: str | Path, samples: int = 3, cache_dir: str | Path | None = None) -> Info:
    """The facts of a folder or URL; reads the sidecars, and of the shards only those with a sample."""
    location = Location.of(folder, cache_dir)
    manifest = Manifest.load(location)
    vocabulary = Vocabulary.load(location, manifest)
    tokenizer = shards_tokenizer(location, manifest)
    unknown = tokenizer.unk_token_id
    tokens = max(manifest.tokens("train"), 1)
    return Info(
        splits={split: _split(location, manifest, split, samples, tokenizer) for split, entries in manifest.splits.items() if entries},
        vocabulary_size=manifest.vocabulary_size,
        vocabulary_used=int((vocabulary.counts > 0).sum()),
        unknown_share=0.0 if unknown is None else int(vocabulary.counts[unknown]) / tokens,
        tokenizer_fingerprint=manifest.tokenizer_fingerprint,
        fingerprint=manifest.fingerprint,
        built_from=manifest.built_from,
    )


def _split(location: Location, manifest: Manifest, split: str, samples: int, tokenizer: Any) -> SplitInfo:
    entries = manifest.entries(split)
    lengths = read_lengths(location, manifest, split)
    percentiles = np.percentile(lengths, PERCENTILES, method="nearest").astype(int).tolist()
    shelf = Shelf(location, manifest, split, verify=False)
    first = offsets([entry.documents for entry in entries])
    texts = []
    for document in np.unique(np.linspace(0, len(lengths) - 1, samples).astype(np.int64)):
        shard = int(np.searchsorted(first, document, side="right") - 1)
        texts.append(tokenizer.decode(shelf.shard(shard).document(int(document - first[shard]))[:SAMPLE_TOKENS]))
    return SplitInfo(
        shards=len(entries),
        documents=manifest.documents(split),
        tokens=manifest.tokens(split),
        bytes=sum(entry.bytes for entry in entries),
        mean_length=manifest.tokens(split) / manifest.documents(split),
        length_percentiles=dict(zip(PERCENTILES, percentiles, strict=True)),
        samples=tuple(texts),
    )
