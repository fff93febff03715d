"""TinyBERT's data augmentation (Jiao et al. 2020, algorithm 1): copies of texts in which some words are replaced.

The candidates for a word come from the caller, for example from a masked language model; this file chooses among them.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from data_shards.errors import DataError
from data_shards.stream.counter_hash import counter_hash, unit_interval
from data_shards.tasks.examples import Examples

Candidates = Callable[[Sequence[Sequence[str]]], Sequence[Sequence[Sequence[str]]]]
"""Texts as words -> for each word of each text the words that may replace it; none where it has to stay."""
REPLACED, CHOSEN = 201, 202
"""Keys of the two random numbers of a word."""
BATCH_TEXTS = 256


def augmented(examples: Examples, candidates: Candidates, copies: int, share: float, seed: int) -> Examples:
    """New texts without labels: `copies` of each text (of a pair, of both texts), in which `share` of the words is replaced.

    Copies that equal their original or each other are left out. The copies of a text depend on the text, its candidates and the seed
    only, never on other rows. Raises DataError for question answering and tagging, whose labels are tied to words.
    """
    if examples.kind in ("question_answering", "tagging"):
        raise DataError(f"augmentation: expected a task that classifies whole texts, got {examples.kind}; leave it out")
    inputs = examples.inputs()
    made: list[tuple[str, ...]] = []
    origins: list[int] = []
    for start in range(0, len(inputs), BATCH_TEXTS):
        batch = inputs[start : start + BATCH_TEXTS]
        words = [text.split() for row in batch for text in row]
        proposed = candidates(words)
        width = len(batch[0])
        for row, original in enumerate(batch):
            own = range(row * width, (row + 1) * width)
            seen = {tuple(" ".join(words[at]) for at in own)}
            for copy in range(copies):
                changed = tuple(_changed(words[at], proposed[at], share, seed, copy) for at in own)
                if changed not in seen:
                    seen.add(changed)
                    made.append(changed)
                    origins.append(start + row)
            assert len(original) == width
    return replace(
        examples,
        split="unlabelled",
        texts=[row[0] for row in made],
        pairs=None if examples.pairs is None else [row[1] for row in made],
        labels=None,
        groups=None,
        ids=[str(number) for number in range(len(made))],
        places=[f"{examples.places[origin]} (augmented)" for origin in origins],
    )


def joined(parts: Sequence[Examples], split: str = "unlabelled") -> Examples:
    """The rows of several splits of one task as one split without labels: a transfer set. Raises DataError for different kinds."""
    if len({(part.kind, part.pairs is None) for part in parts}) != 1:
        raise DataError(f"{split}: expected splits of one kind, got {', '.join(part.kind for part in parts)}; join those of one task")
    return Examples(
        split,
        parts[0].kind,
        [text for part in parts for text in part.texts],
        None if parts[0].pairs is None else [pair for part in parts for pair in part.pairs or []],
        None if parts[0].words is None else [words for part in parts for words in part.words or []],
        ids=[str(number) for number in range(sum(map(len, parts)))],
        places=[place for part in parts for place in part.places],
    )


def _changed(words: Sequence[str], proposed: Sequence[Sequence[str]], share: float, seed: int, copy: int) -> str:
    """The words with some of them replaced, joined by spaces."""
    key = int.from_bytes(hashlib.blake2b(" ".join(words).encode(), digest_size=8).digest(), "little")
    positions = np.arange(len(words))
    replaced = unit_interval(counter_hash(seed, REPLACED, key, copy, positions)) < share
    chosen = unit_interval(counter_hash(seed, CHOSEN, key, copy, positions))
    return " ".join(
        options[int(chosen[at] * len(options))] if replaced[at] and (options := proposed[at]) else word for at, word in enumerate(words)
    )
