"""A smaller vocabulary: the most frequent pieces of a tokenizer, and the pieces that any text may need.

1. `pieces_to_keep` chooses ids. It keeps special and added tokens, single characters and bytes, and pieces that these cannot spell.
   Then it adds pieces by their counts in a corpus. A BPE piece needs the pieces that it is merged from.
2. `pruned_json` is tokenizer.json of the same tokenizer with these pieces only, renumbered in their old order.
3. `pruned_tokenizer` wraps it for saving.

A word whose pieces were all kept is split as before. Its longest match (WordPiece), best path (Unigram) or merges (BPE) are still the
first choice.
"""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from data_shards.errors import DataError
from data_shards.tokenizer.fingerprint import plain_json
from data_shards.tokenizer.tokenizer import is_special, vocabulary_size

BYTE = re.compile(r"^<0x[0-9A-F]{2}>$")
NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


def pieces_to_keep(tokenizer: PreTrainedTokenizerBase, counts: NDArray[np.uint64], size: int) -> NDArray[np.int64]:
    """The old ids of the new vocabulary, ascending: new id i is old id result[i]. int64 [size] or, where BPE ends a little below, fewer.

    counts [V]: the count of each id in a corpus; of equally frequent ones the lower id is kept.
    Raises DataError for a tokenizer of another kind, and for a size below what always stays or not below the present one.
    """
    model = json.loads(plain_json(tokenizer))["model"]
    vocabulary = _vocabulary(model)
    always = _always(tokenizer, model, vocabulary)
    present = vocabulary_size(tokenizer)
    if len(always) > size:
        raise DataError(
            f"size: expected at least {len(always)}, special tokens, single characters and what they cannot spell, got {size}; raise it"
        )
    if size >= present:
        raise DataError(f"size: expected fewer than the {present} entries that the vocabulary has, got {size}; lower it")
    order = sorted(range(present), key=lambda index: (-int(counts[index]), index))
    names = {index: token for token, index in vocabulary.items()}
    parts = _parts(model)
    kept = set(always)
    for index in order:
        new = _with_parts(names[index], parts, vocabulary) - kept if index in names else set()
        if len(kept) + len(new) <= size:
            kept |= new
        if len(kept) == size:
            break
    return np.array(sorted(kept), np.int64)


def pruned_json(tokenizer: PreTrainedTokenizerBase, kept: NDArray[np.int64]) -> str:
    """tokenizer.json with the kept pieces only. Ids and merges in it are renumbered and filtered."""
    content = json.loads(plain_json(tokenizer))
    model = content["model"]
    new_id = {int(old): new for new, old in enumerate(kept)}
    vocabulary = _vocabulary(model)
    tokens = {token for token, index in vocabulary.items() if index in new_id}
    if model["type"] == "Unigram":
        model["vocab"] = [entry for index, entry in enumerate(model["vocab"]) if index in new_id]
        model["unk_id"] = None if model["unk_id"] is None else new_id[model["unk_id"]]
    else:
        model["vocab"] = {token: new_id[index] for token, index in vocabulary.items() if token in tokens}
    if model["type"] == "BPE":
        model["merges"] = [pair for pair in map(_pair, model["merges"]) if {*pair, _merged(model, *pair)} <= tokens]
    for token in content["added_tokens"]:
        token["id"] = new_id[token["id"]]
    _renumber(content.get("post_processor"), new_id)
    return json.dumps(content, ensure_ascii=False)


def pruned_tokenizer(tokenizer: PreTrainedTokenizerBase, kept: NDArray[np.int64]) -> PreTrainedTokenizerFast:
    """The tokenizer of the kept pieces, ready to be saved: special tokens, length and sides as before."""
    special = {name: getattr(tokenizer, name) for name in NAMES if getattr(tokenizer, name, None) is not None}
    names = ("model_max_length", "padding_side", "truncation_side", "model_input_names", "clean_up_tokenization_spaces")
    properties = {name: getattr(tokenizer, name) for name in names if hasattr(tokenizer, name)}
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(pruned_json(tokenizer, kept)), **special, **properties)


def _vocabulary(model: Mapping[str, Any]) -> dict[str, int]:
    """Piece -> id, added tokens not among them. Raises DataError for a kind of tokenizer that cannot be pruned."""
    if model["type"] == "Unigram":
        return {token: index for index, (token, _score) in enumerate(model["vocab"])}
    if model["type"] in ("WordPiece", "BPE"):
        return dict(model["vocab"])
    raise DataError(f"tokenizer: expected WordPiece, BPE or Unigram, got {model['type']}; its vocabulary cannot be pruned")


def _always(tokenizer: PreTrainedTokenizerBase, model: Mapping[str, Any], vocabulary: Mapping[str, int]) -> set[int]:
    """Ids that are kept for any counts."""
    kept = set(np.flatnonzero(is_special(tokenizer)).tolist()) | {int(index) for index in tokenizer.added_tokens_decoder}
    if model["type"] == "Unigram" and model["unk_id"] is not None:
        kept.add(model["unk_id"])
    elif model.get("unk_token") in vocabulary:
        kept.add(vocabulary[model["unk_token"]])
    parts = _parts(model)
    for token, index in vocabulary.items():
        if index not in kept and (BYTE.match(token) or not _spelt_by_characters(token, model, vocabulary)):
            kept |= _with_parts(token, parts, vocabulary)
    return kept


def _spelt_by_characters(token: str, model: Mapping[str, Any], vocabulary: Mapping[str, int]) -> bool:
    """True if the piece has more than one character, and each of them is a piece."""
    prefix = model.get("continuing_subword_prefix") or ""
    continues = bool(prefix) and token.startswith(prefix) and len(token) > len(prefix)
    text = token[len(prefix) :] if continues else token
    singles = [f"{prefix}{character}" if prefix and (continues or index) else character for index, character in enumerate(text)]
    return len(text) > 1 and all(single in vocabulary for single in singles)


def _pair(merge: Any) -> tuple[str, str]:
    first, second = merge.split(" ") if isinstance(merge, str) else merge
    return first, second


def _merged(model: Mapping[str, Any], first: str, second: str) -> str:
    return first + second.removeprefix(model.get("continuing_subword_prefix") or "")


def _parts(model: Mapping[str, Any]) -> dict[str, set[str]]:
    """The pieces that each BPE piece is merged from, by any of its merges; empty for the other kinds."""
    parts: dict[str, set[str]] = {}
    for first, second in map(_pair, model.get("merges") or ()):
        parts.setdefault(_merged(model, first, second), set()).update((first, second))
    return parts


def _with_parts(token: str, parts: Mapping[str, Iterable[str]], vocabulary: Mapping[str, int]) -> set[int]:
    """The id of a piece and of all that it is merged from."""
    names: set[str] = set()
    waiting = [token]
    while waiting:
        name = waiting.pop()
        if name not in names:
            names.add(name)
            waiting.extend(parts.get(name, ()))
    return {vocabulary[name] for name in names}


def _renumber(processor: Any, new_id: Mapping[int, int]) -> None:
    """Ids inside a post-processor, in place: BERT's and RoBERTa's pairs, a template's special tokens, sequences of them."""
    if not isinstance(processor, dict):
        return
    for inner in processor.get("processors", ()):
        _renumber(inner, new_id)
    for name in ("sep", "cls"):
        if name in processor:
            processor[name] = [processor[name][0], new_id[processor[name][1]]]
    for special in (processor.get("special_tokens") or {}).values():
        special["ids"] = [new_id[index] for index in special["ids"]]
