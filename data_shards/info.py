"""A summary of a shard folder: counts, lengths, the used share of the vocabulary, and samples of the text."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from data_shards.corpus import Corpus
from data_shards.storage.manifest import BuiltFrom
from data_shards.storage.open_shards import OpenShards
from data_shards.stream.order import offsets

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
    """One folder. vocabulary_used: ids with at least one token in the train split; unknown_share: the share of [UNK] in its tokens."""

    splits: dict[str, SplitInfo]
    vocabulary_size: int
    vocabulary_used: int
    unknown_share: float
    tokenizer_fingerprint: str
    fingerprint: str
    built_from: BuiltFrom


def info(folder: str | Path | Corpus, samples: int = 3, cache_folder: str | Path | None = None) -> Info:
    """The summary of a folder, a URL or an open corpus. Reads the sidecars and the shards that hold a sample."""
    corpus = Corpus.open(folder, cache_folder)
    manifest, counts = corpus.manifest, corpus.token_statistics.counts
    unknown = corpus.tokenizer.unk_token_id
    tokens = max(manifest.tokens("train"), 1)
    return Info(
        splits={split: _split(corpus, split, samples) for split, entries in manifest.splits.items() if entries},
        vocabulary_size=manifest.vocabulary_size,
        vocabulary_used=int((counts > 0).sum()),
        unknown_share=0.0 if unknown is None else int(counts[unknown]) / tokens,
        tokenizer_fingerprint=manifest.tokenizer_fingerprint,
        fingerprint=manifest.fingerprint,
        built_from=manifest.built_from,
    )


def _split(corpus: Corpus, split: str, samples: int) -> SplitInfo:
    manifest = corpus.manifest
    entries, lengths = manifest.entries(split), corpus.lengths(split)
    percentiles = np.percentile(lengths, PERCENTILES, method="nearest").astype(int).tolist()
    shards = OpenShards(corpus.location, manifest, split, verify=False)
    first = offsets([entry.documents for entry in entries])
    texts = []
    for document in np.unique(np.linspace(0, len(lengths) - 1, samples).astype(np.int64)):
        number = int(np.searchsorted(first, document, side="right") - 1)
        ids = shards.shard(number).document(int(document - first[number]))
        texts.append(str(corpus.tokenizer.decode(ids[:SAMPLE_TOKENS])))
    return SplitInfo(
        shards=len(entries),
        documents=manifest.documents(split),
        tokens=manifest.tokens(split),
        bytes=sum(entry.bytes for entry in entries),
        mean_length=manifest.tokens(split) / manifest.documents(split),
        length_percentiles=dict(zip(PERCENTILES, percentiles, strict=True)),
        samples=tuple(texts),
    )
