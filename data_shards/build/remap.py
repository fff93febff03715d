"""Shards of a pruned vocabulary from shards of the whole one, without the text.

| tokenizer | a word is | result |
| --- | --- | --- |
| WordPiece | a piece and the ##pieces after it | split by the pruned tokenizer; [UNK], whose text is lost, stays [UNK] |
| Unigram, BPE with ▁ | a piece with ▁ and those after it | the same; unknown characters and bytes stay; other text is split again |
| BPE over bytes | the document | decoded exactly, and encoded by the pruned tokenizer |

Only words with a removed piece are split again. The others keep their pieces (reason: data_shards/tokenizer/pruning.py). So the folder
equals a build from the text with the pruned tokenizer. The exception is words that were unknown and are known now, because the longest
match can fail with the larger vocabulary only.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from data_shards.build.sidecars import finish
from data_shards.corpus import Corpus
from data_shards.errors import DataError
from data_shards.storage.manifest import Manifest, smallest_dtype
from data_shards.storage.shard import Shard
from data_shards.storage.shard_writer import ShardWriters
from data_shards.tokenizer.fingerprint import plain_json, tokenizer_fingerprint
from data_shards.tokenizer.pruning import BYTE
from data_shards.tokenizer.tokenizer import is_special, vocabulary_size
from stillhouse.errors import one_line

CHUNK_TOKENS = 1 << 18
Ids = NDArray[Any]
Remap = Callable[[Ids, Ids], tuple[Ids, Ids]]


def remap_shards(source: str | Path | Corpus, target: str | Path, pruned: Any, kept: NDArray[np.int64]) -> Manifest:
    """Write the folder `target`: the documents of `source` as ids of the pruned tokenizer, in the same order and split.

    kept [V']: the old id of each new one. Returns the new manifest. Raises DataError for a target that is not empty, a tokenizer whose
    words cannot be found in its ids, and for a damaged source.
    """
    corpus = Corpus.open(source)
    folder = Path(target)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder}: expected a free name for the shards, got something there; choose another or remove it")
    remap = remapper(corpus.tokenizer, pruned, kept)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _written(corpus, folder, pruned, remap)
    except BaseException as error:
        shutil.rmtree(folder, ignore_errors=True)  # it was free
        if isinstance(error, OSError):
            raise DataError(f"{folder}: expected to write the shards there, got {one_line(error)}; free space or choose another") from None
        raise


def _written(corpus: Corpus, folder: Path, pruned: Any, remap: Remap) -> Manifest:
    """The new shards and sidecars."""
    before = corpus.manifest
    size = vocabulary_size(pruned)
    settings = before.built_from.settings
    block_tokens, shard_tokens = (settings.get(name, default) for name, default in (("block_tokens", 1 << 20), ("shard_tokens", 1 << 24)))
    with ShardWriters(folder, block_tokens, shard_tokens, size) as shards:
        for split, writer in shards.splits.items():
            for ids, lengths in _documents(corpus, split):
                new_ids, new_lengths = remap(ids, lengths)
                writer.add(new_ids.astype(smallest_dtype(size)), new_lengths.astype(np.uint32), [b""] * len(lengths))
    pruning = {"fingerprint": before.fingerprint, "tokenizer": before.tokenizer_fingerprint, "vocabulary_size": before.vocabulary_size}
    built_from = before.built_from.model_copy(update={"settings": settings | {"remapped_from": pruning}})
    return finish(folder, shards.entries, shards.counts, pruned, built_from)


def remapper(tokenizer: Any, pruned: Any, kept: NDArray[np.int64]) -> Remap:
    """A function (concatenated ids of documents, tokens of each) -> the same for the pruned tokenizer. DataError: see remap_shards."""
    lookup = np.full(vocabulary_size(tokenizer), -1, np.int64)
    lookup[kept] = np.arange(len(kept))
    content = json.loads(plain_json(tokenizer))
    kind = content["model"]["type"]
    marks = json.dumps([content.get(name) for name in ("pre_tokenizer", "normalizer", "decoder")], ensure_ascii=False)
    cutters = content.get("pre_tokenizer") or {"pretokenizers": []}
    plain = {cutter["type"] for cutter in cutters.get("pretokenizers", [cutters])} <= {"Metaspace", "WhitespaceSplit"}
    backend = Tokenizer.from_str(plain_json(pruned))
    if kind == "WordPiece":
        return _by_words(tokenizer, backend, lookup, content["model"]["continuing_subword_prefix"], starts_with_mark=False)
    if "ByteLevel" in marks:
        return _by_documents(Tokenizer.from_str(plain_json(tokenizer)), backend, lookup)
    inside = [token for token in tokenizer.get_vocab() if "▁" in token[1:]]
    if "▁" in marks and plain and not inside:
        return _by_words(tokenizer, backend, lookup, "▁", starts_with_mark=True)
    raise DataError(
        f"tokenizer: expected one whose words can be found in its ids (WordPiece, bytes, or ▁ at their beginning only), got {kind}; "
        "build the shards from the text with the pruned tokenizer"
    )


def _by_documents(whole: Tokenizer, pruned: Tokenizer, lookup: NDArray[np.int64]) -> Remap:
    """Documents with a removed id are decoded and encoded again."""

    def remap(ids: Ids, lengths: Ids) -> tuple[Ids, Ids]:
        documents = np.split(ids, np.cumsum(lengths, dtype=np.int64)[:-1])
        parts = [lookup[document] for document in documents]
        broken = [number for number, part in enumerate(parts) if (part < 0).any()]
        texts = whole.decode_batch([documents[number].tolist() for number in broken], skip_special_tokens=False)
        for number, encoding in zip(broken, pruned.encode_batch_fast(texts, add_special_tokens=False), strict=True):
            parts[number] = np.array(encoding.ids, np.int64)
        return np.concatenate(parts), np.array([len(part) for part in parts], np.int64)

    return remap


def _by_words(tokenizer: Any, pruned: Tokenizer, lookup: NDArray[np.int64], mark: str, starts_with_mark: bool) -> Remap:
    """Words with a removed id are split again, each distinct word once.

    mark: prefix of the pieces that begin a word (starts_with_mark) or continue one.
    """
    apart = is_special(tokenizer)  # no text, or a text that is lost: words end at these ids
    surface = [""] * len(lookup)
    begins = np.ones(len(lookup), np.bool_)
    for token, index in tokenizer.get_vocab().items():
        surface[index] = token if starts_with_mark else token.removeprefix(mark)
        begins[index] = token.startswith(mark) == starts_with_mark
        apart[index] |= BYTE.match(token) is not None
    unknown = json.loads(plain_json(tokenizer))["model"]
    unk = unknown.get("unk_id") if unknown["type"] == "Unigram" else tokenizer.get_vocab().get(unknown.get("unk_token"))
    if unk is not None:
        apart[unk] = True
    begins |= apart
    known: dict[bytes, list[int]] = {}

    def cut(word: Ids) -> list[int]:
        key = word.tobytes()
        if key not in known:
            known[key] = [token.id for token in pruned.model.tokenize("".join(surface[index] for index in word))]
        return known[key]

    def remap(ids: Ids, lengths: Ids) -> tuple[Ids, Ids]:
        first = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])[:-1]
        starts = begins[ids]
        starts[1:] |= apart[ids[:-1]]
        starts[first] = True
        new = lookup[ids]
        counts = np.ones(len(ids), np.int64)
        bounds = np.append(np.flatnonzero(starts), len(ids))
        broken = np.unique(np.cumsum(starts)[new < 0]) - 1
        pieces: list[int] = []
        for begin, end in zip(bounds[broken].tolist(), bounds[broken + 1].tolist(), strict=True):
            cuts = cut(ids[begin:end])
            counts[begin:end] = 0
            counts[begin] = len(cuts)
            pieces.extend(cuts)
        whole = np.repeat(new, counts)
        fresh = np.zeros(len(ids), np.bool_)
        fresh[bounds[broken]] = True
        whole[np.repeat(fresh, counts)] = pieces
        return whole, np.add.reduceat(counts, first)

    return remap


def _documents(corpus: Corpus, split: str) -> Iterator[tuple[Ids, Ids]]:
    """Whole documents of a split in order, about CHUNK_TOKENS at a time: (their concatenated ids, tokens of each)."""
    for entry in corpus.manifest.entries(split):
        shard = Shard.open(corpus.location, entry, dtype=corpus.manifest.dtype)
        document = 0
        while document < len(shard.lengths):
            last = int(np.searchsorted(shard.starts, shard.starts[document] + CHUNK_TOKENS, side="right")) - 1
            last = min(max(last, document + 1), len(shard.lengths))
            yield shard.tokens(np.arange(shard.starts[document], shard.starts[last])), shard.lengths[document:last].astype(np.int64)
            document = last


def same_tokenizer(tokenizer: Any, manifest: Manifest, name: str) -> None:
    """Raises DataError unless the shards were made with this tokenizer."""
    actual, expected = tokenizer_fingerprint(tokenizer), manifest.tokenizer_fingerprint
    if actual != expected:
        raise DataError(
            f"{name}: expected the tokenizer {expected[:12]}… that the shards were made with, got {actual[:12]}…; "
            "use the shards' model, or build shards with this one"
        )
