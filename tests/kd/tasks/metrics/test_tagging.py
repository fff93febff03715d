"""Entities by hand, and against seqeval 1.2.2: its results on random tags are in tests/golden/entities.json."""

import json
from pathlib import Path

import numpy as np
import pytest

from kd.errors import KdError
from kd.tasks.metrics.tagging import entities, entity_f1, entity_scores, entity_scores_by_type, weighted_entity_f1

GOLDEN = json.loads((Path(__file__).parents[3] / "golden" / "entities.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),
        ("I-PER I-PER O I-LOC", [("PER", 0, 1), ("LOC", 3, 3)]),  # IOB1: B only between two entities of one type
        ("I-PER B-PER I-PER", [("PER", 0, 0), ("PER", 1, 2)]),
        ("S-PER B-LOC I-LOC E-LOC", [("PER", 0, 0), ("LOC", 1, 3)]),  # IOBES
        ("B-PER I-LOC", [("PER", 0, 0), ("LOC", 1, 1)]),
        ("O O", []),
        ("", []),
    ],
)
def test_three_schemes_are_read_by_one_rule(tags: str, expected: list):
    assert entities(tags.split()) == expected


def test_scores_count_exact_matches():
    predicted = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG"]]
    gold = [["B-PER", "I-PER", "O", "B-ORG"], ["O", "B-ORG"]]
    scores = entity_scores(predicted, gold)
    assert (scores.precision, scores.recall, scores.f1, scores.support) == pytest.approx((2 / 3, 2 / 3, 2 / 3, 3))
    assert {kind: of.f1 for kind, of in entity_scores_by_type(predicted, gold).items()} == pytest.approx({"LOC": 0, "ORG": 2 / 3, "PER": 1})
    np.testing.assert_allclose(weighted_entity_f1(predicted, gold)(np.array([[1.0, 1], [2, 0], [0, 2]])), [2 / 3, 1 / 2, 1])
    assert entity_f1([["O"]], [["O"]]) == 0


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: case["name"])
def test_scores_equal_those_of_seqeval(case: dict):
    scores = entity_scores(case["predicted"], case["gold"])
    assert [scores.precision, scores.recall, scores.f1] == pytest.approx(case["scores"], rel=1e-12)
    by_type = {kind: of.f1 for kind, of in entity_scores_by_type(case["predicted"], case["gold"]).items()}
    assert by_type == pytest.approx(case["f1_by_type"], rel=1e-12)


def test_unknown_prefixes_and_missing_tags_are_named():
    with pytest.raises(KdError, match="tag 'U-PER': expected O or a prefix B, I, E or S"):
        entities(["U-PER"])
    with pytest.raises(KdError, match="in sentence 1, got 1 predicted and 2 gold"):
        entity_f1([["O"], ["O"]], [["O"], ["O", "O"]])
