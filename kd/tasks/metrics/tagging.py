"""Precision, recall and F1 of entities, read from tags by the rules of conlleval, CoNLL-2003's official script.

The same rules read BIO, IOB1 and IOBES. An entity begins at B or S, after O, after E or S, or where the type changes.
Tags are texts such as `B-PER`; `O` is outside. An example is one sentence.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kd.errors import KdError
from kd.tasks.metrics.resampling import Integers, Weighted, check_aligned, f1_of_counts, of_sums

Tags = Sequence[Sequence[str]]
PREFIXES = frozenset("BIES")


@dataclass(frozen=True)
class EntityScores:
    """Shares 0 .. 1 of exact matches of type and both ends. support: gold entities."""

    precision: float
    recall: float
    f1: float
    support: int


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The entities of a sentence: (type, first token, last token)."""
    found: list[tuple[str, int, int]] = []
    begin = 0
    before, kind_before = "O", ""
    for position, tag in enumerate([*tags, "O"]):
        prefix, kind = _split(tag)
        inside_before = before != "O"
        changed = prefix in ("O", "B", "S") or before in ("E", "S") or kind != kind_before
        if inside_before and changed:
            found.append((kind_before, begin, position - 1))
        if prefix != "O" and (changed or not inside_before):
            begin = position
        before, kind_before = prefix, kind
    return found


def entity_counts(predictions: Tags, labels: Tags) -> Integers:
    """Per sentence [n, 3]: entities that match, predicted entities, gold entities."""
    check_aligned("entity F1", predictions, labels)
    rows = np.empty((len(labels), 3), dtype=np.int64)
    for number, (predicted, gold) in enumerate(zip(predictions, labels, strict=True)):
        ours, theirs = _pair(number, predicted, gold)
        rows[number] = len(ours & theirs), len(ours), len(theirs)
    return rows


def entity_scores(predictions: Tags, labels: Tags) -> EntityScores:
    """Scores over all entities (micro average)."""
    return _scores(*(int(count) for count in entity_counts(predictions, labels).sum(axis=0)))


def entity_scores_by_type(predictions: Tags, labels: Tags) -> dict[str, EntityScores]:
    """Scores of each entity type that occurs, in alphabetical order."""
    check_aligned("entity F1", predictions, labels)
    hits, predicted_of, gold_of = Counter[str](), Counter[str](), Counter[str]()
    for number, (predicted, gold) in enumerate(zip(predictions, labels, strict=True)):
        ours, theirs = _pair(number, predicted, gold)
        hits.update(kind for kind, *_ in ours & theirs)
        predicted_of.update(kind for kind, *_ in ours)
        gold_of.update(kind for kind, *_ in theirs)
    return {kind: _scores(hits[kind], predicted_of[kind], gold_of[kind]) for kind in sorted(predicted_of | gold_of)}


def entity_f1(predictions: Tags, labels: Tags) -> float:
    """F1 over all entities; 0 where nothing is predicted or nothing is gold."""
    return entity_scores(predictions, labels).f1


def weighted_entity_f1(predictions: Tags, labels: Tags) -> Weighted:
    """Entity F1 of each resample of sentences."""
    return of_sums(entity_counts(predictions, labels), lambda sums: f1_of_counts(sums[:, 0], sums[:, 1], sums[:, 2]))


def _pair(number: int, predicted: Sequence[str], gold: Sequence[str]) -> tuple[set[tuple[str, int, int]], set[tuple[str, int, int]]]:
    if len(predicted) != len(gold):
        raise KdError(
            f"entity F1: expected a tag per token in sentence {number}, got {len(predicted)} predicted and {len(gold)} gold; tag every word"
        )
    return set(entities(predicted)), set(entities(gold))


def _split(tag: str) -> tuple[str, str]:
    """Prefix and type; `B` alone has the type ``."""
    prefix, _, kind = tag.partition("-")
    if prefix != "O" and prefix not in PREFIXES:
        raise KdError(f"tag {tag!r}: expected O or a prefix B, I, E or S with a type (B-PER), got {prefix!r}; convert the tags to BIO")
    return prefix, kind


def _scores(hits: int, predicted: int, gold: int) -> EntityScores:
    return EntityScores(
        precision=hits / predicted if predicted else 0.0,
        recall=hits / gold if gold else 0.0,
        f1=2 * hits / (predicted + gold) if predicted + gold else 0.0,
        support=gold,
    )
