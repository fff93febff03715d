"""Examples to token ids: what transformers' tokenizer(text, text_pair, truncation=True, max_length=...) gives, by the batch."""

import json
import re
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from data_shards.errors import DataError
from data_shards.tasks.encoding.encoded import IGNORED, EncodeCounts, EncodedTask, Ints
from data_shards.tasks.encoding.windows import encode_questions
from data_shards.tasks.examples import Examples
from data_shards.tasks.settings import TaskDataSettings, did_you_mean, listed
from stillhouse.errors import one_line

CHUNK_ROWS = 2048
"""Rows that the tokenizer gets at a time: its results take a hundred times the memory of the ids."""


def encode(examples: Examples, tokenizer: Any, settings: TaskDataSettings, labels: Sequence[str] | None = None) -> EncodedTask:
    """The rows of a split as ids, with labels as numbers in `labels`. The tokenizer is a fast one of transformers.

    A text is cut at settings.max_length, of a pair the longer text first. A tokenizer.json's own truncation and padding are switched off.
    Raises DataError for a tokenizer without a pad token, and for a label that is not in `labels`.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise DataError(f"tokenizer: expected a fast tokenizer (tokenizer.json), got {type(tokenizer).__name__}; save it as a fast one")
    if tokenizer.pad_token_id is None:
        raise DataError(f"tokenizer {tokenizer.name_or_path}: expected a pad token, got none; add one to tokenizer_config.json")
    counts = EncodeCounts(examples=len(examples), special=_spelt(examples, tokenizer))
    shared: dict[str, Any] = {
        "pad_id": int(tokenizer.pad_token_id),
        "max_length": settings.max_length,
        "counts": counts,
        "split": examples.split,
    }
    if examples.kind == "question_answering":
        return EncodedTask(kind=examples.kind, label_names=(), **shared, **encode_questions(examples, tokenizer, settings, counts))
    backend = pipeline(tokenizer, words=examples.kind == "tagging")
    backend.enable_truncation(settings.max_length, strategy="longest_first", direction=tokenizer.truncation_side)
    ids: list[Ints] = []
    types: list[NDArray[np.uint8]] = []
    words: list[Ints] = []
    lengths: list[int] = []
    cut: list[bool] = []
    for chunk in _encodings(backend, examples):
        sizes = [len(encoding) for encoding in chunk]
        lengths += sizes
        total = sum(sizes)
        ids.append(np.fromiter(chain.from_iterable(encoding.ids for encoding in chunk), np.int32, total))
        types.append(np.fromiter(chain.from_iterable(encoding.type_ids for encoding in chunk), np.uint8, total))
        cut += [bool(encoding.overflowing) for encoding in chunk]
        if examples.kind == "tagging":
            found = chain.from_iterable((-1 if word is None else word for word in encoding.word_ids) for encoding in chunk)
            words.append(np.fromiter(found, np.int32, total))
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    first = _first_tokens(np.concatenate(words), offsets) if words else None
    counts.truncated = sum(cut)
    if tokenizer.cls_token_id is not None:
        begins = np.concatenate(ids)[offsets[:-1][np.diff(offsets) > 0]]
        counts.unmarked = len(examples) - int(np.count_nonzero(begins == tokenizer.cls_token_id))
    names = list(labels or [])
    return EncodedTask(
        kind=examples.kind,
        ids=np.concatenate(ids),
        token_types=np.concatenate(types),
        offsets=offsets,
        examples=np.arange(len(examples), dtype=np.int32),
        labels=_tags(examples, first, offsets, names, np.array(cut), counts) if first is not None else _numbers(examples, names),
        label_names=tuple(names),
        words=first,
        **shared,
    )


def pipeline(tokenizer: Any, words: bool = False) -> Tokenizer:
    """A copy of the tokenizer's pipeline that neither cuts nor pads. words: for texts that are split into words.

    A byte-level pipeline (RoBERTa's) then puts a space before each word, as transformers demands with add_prefix_space.
    """
    return own_pipeline(tokenizer.backend_tokenizer.to_str(), words)


def own_pipeline(serialized: str, words: bool = False) -> Tokenizer:
    """The same for the content of a tokenizer.json."""
    content = json.loads(serialized)
    if words:
        _prefix_space(content.get("pre_tokenizer"))
    own = Tokenizer.from_str(json.dumps(content))
    own.no_truncation()
    own.no_padding()
    return own


def label_numbers(names: Sequence[str], values: Sequence[str], places: Sequence[str]) -> Ints:
    """The number of each value in `names`. int32 [len(values)]. Raises DataError, with the place, for another name."""
    number = {name: index for index, name in enumerate(names)}
    unknown = next((index for index, value in enumerate(values) if value not in number), None)
    if unknown is not None:
        raise DataError(
            f"{places[unknown]}: expected a label among {listed(names)}, got {values[unknown]:.60}"
            f"{did_you_mean(values[unknown], names)}; correct it, or add it to labels"
        )
    return np.fromiter((number[value] for value in values), np.int32, len(values))


def _prefix_space(part: Any) -> None:
    if isinstance(part, dict):
        if part.get("type") == "ByteLevel":
            part["add_prefix_space"] = True
        for inner in part.get("pretokenizers", []):
            _prefix_space(inner)


def _encodings(backend: Tokenizer, examples: Examples) -> Iterator[list[Encoding]]:
    """The encodings of all rows, a chunk at a time."""
    if examples.words is not None:
        inputs: list[Any] = list(examples.words)
    else:
        inputs = list(examples.texts) if examples.pairs is None else list(zip(examples.texts, examples.pairs, strict=True))
    for start in range(0, len(inputs), CHUNK_ROWS):
        try:
            yield backend.encode_batch(inputs[start : start + CHUNK_ROWS], is_pretokenized=examples.words is not None)
        except Exception as error:  # the tokenizers library raises plain Exception
            raise DataError(
                f"{examples.places[start]}: expected text that the tokenizer can read, got {one_line(error)[:180]}; repair it"
            ) from None


def _first_tokens(words: Ints, offsets: NDArray[np.int64]) -> Ints:
    """The word numbers, with -1 at every token that is not the first of its word. int32 [T]."""
    before = np.concatenate([[-1], words[:-1]]) if len(words) else words
    before[offsets[:-1][offsets[:-1] < len(words)]] = -1
    return np.where(words != before, words, -1).astype(np.int32)


def _tags(
    examples: Examples, first: Ints, offsets: NDArray[np.int64], names: list[str], cut: NDArray[np.bool_], counts: EncodeCounts
) -> Ints | None:
    """The tag's number at the first token of each word. int32 [T]; None without labels. Counts words without a token."""
    sizes = np.fromiter((len(words) for words in examples.words or []), np.int64, len(examples))
    rows = np.repeat(np.arange(len(examples)), np.diff(offsets))
    last = np.full(len(examples), -1, np.int64)
    np.maximum.at(last, rows, first)
    behind = sizes - last - 1
    counts.words = int(sizes.sum())
    counts.cut_words = int(behind[cut].sum())
    counts.lost_words = counts.words - counts.cut_words - int((first >= 0).sum())
    if examples.labels is None:
        return None
    places = [place for place, row in zip(examples.places, examples.labels, strict=True) for _ in row]
    numbers = label_numbers(names, [tag for row in examples.labels for tag in row], places)
    begins = np.concatenate([[0], np.cumsum(sizes)])[:-1]
    tags = np.full(len(first), IGNORED, np.int32)
    scored = first >= 0
    tags[scored] = numbers[begins[rows[scored]] + first[scored]]
    return tags


def _numbers(examples: Examples, names: list[str]) -> NDArray[Any] | None:
    """The labels of the rows as an array; None without labels."""
    labels = examples.labels
    if labels is None:
        return None
    if examples.kind == "regression":
        return np.asarray(labels, np.float32)
    if examples.kind == "classification":
        return label_numbers(names, labels, examples.places)
    matrix = np.zeros((len(labels), len(names)), np.float32)
    for row, chosen in enumerate(labels):
        matrix[row, label_numbers(names, chosen, [examples.places[row]] * len(chosen))] = 1
    return matrix


def _spelt(examples: Examples, tokenizer: Any) -> int:
    """Rows whose text holds a special token."""
    pattern = re.compile("|".join(re.escape(token) for token in tokenizer.all_special_tokens if token))
    pairs = examples.pairs or [""] * len(examples)
    return sum(bool(pattern.search(text) or pattern.search(pair)) for text, pair in zip(examples.texts, pairs, strict=True))
