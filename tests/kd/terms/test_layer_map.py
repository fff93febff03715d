"""Layer maps by hand, for the papers' shapes; and the one learned from a table of similarities."""

import itertools

import pytest
import torch
from pydantic import TypeAdapter

from kd.errors import KdError
from kd.terms.layer_map import LayerMap, LayerPair, by_similarity, resolve_layer_map

MAP = TypeAdapter(LayerMap)


def teachers(layer_map: object, student: int, teacher: int) -> list[list[int]]:
    pairs = resolve_layer_map(MAP.validate_python(layer_map), student, teacher, "objective (x)")
    assert [pair.student for pair in pairs] == sorted(pair.student for pair in pairs)
    return [pair.teacher for pair in pairs]


@pytest.mark.parametrize(
    ("layer_map", "student", "teacher", "expected"),
    [
        ("uniform", 4, 12, [2, 5, 8, 11]),  # TinyBERT's g(m) = 3m, counted from 1
        ("uniform", 6, 12, [1, 3, 5, 7, 9, 11]),
        ("uniform", 3, 3, [0, 1, 2]),
        ("uniform", 4, 6, [0, 2, 3, 5]),
        ("every_other", 6, 12, [0, 2, 4, 6, 8, 10]),
        ("first", 3, 12, [0, 1, 2]),
        ("last", 3, 12, [9, 10, 11]),
        ("skip", 6, 12, [1, 3, 5, 7, 9]),  # PKD-Skip: {2, 4, 6, 8, 10}, counted from 1
        ("pkd_last", 6, 12, [6, 7, 8, 9, 10]),  # PKD-Last: {7, 8, 9, 10, 11}
        ("skip", 3, 12, [3, 7]),
    ],
)
def test_named_maps_are_the_papers(layer_map: str, student: int, teacher: int, expected: list[int]) -> None:
    assert teachers(layer_map, student, teacher) == [[layer] for layer in expected]


def test_mean_takes_every_teacher_layer_once() -> None:
    assert teachers("mean", 4, 12) == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]]
    for student, teacher in itertools.combinations_with_replacement(range(1, 8), 2):
        assert list(itertools.chain(*teachers("mean", student, teacher))) == list(range(teacher))


def test_final_and_explicit_pairs_may_join_any_depths() -> None:
    assert resolve_layer_map("final", 24, 12, "") == [LayerPair(student=23, teacher=[11])]
    pairs = MAP.validate_python([{"student": -1, "teacher": 20}, {"student": 0, "teacher": [3, -24]}])
    assert resolve_layer_map(pairs, 6, 24, "") == [LayerPair(student=0, teacher=[0, 3]), LayerPair(student=5, teacher=[20])]


@pytest.mark.parametrize(
    ("layer_map", "line"),
    [
        (
            [{"student": 6, "teacher": 0}],
            r"objective \(x\).layer_map: expected student layers from 0 to 5 \(or -6 to -1, from the end\), got 6",
        ),
        ([{"student": 0, "teacher": [0, 12]}], "expected teacher layers from 0 to 11 .*, got 12; correct the pair"),
        ([{"student": -7, "teacher": 0}], "got -7; correct the pair"),
        ([{"student": 0, "teacher": 1}, {"student": -6, "teacher": 2}], "expected each student layer once, got -6 twice"),
        ("cka", "expected the layers that cka stands for, got none"),
    ],
)
def test_maps_that_cannot_be_are_one_line(layer_map: object, line: str) -> None:
    with pytest.raises(KdError, match=line):
        teachers(layer_map, 6, 12)


def test_a_map_by_similarity_is_the_best_ascending_one() -> None:
    generator = torch.Generator().manual_seed(5)
    for _ in range(20):
        table = torch.rand(3, 6, generator=generator)
        best = max(itertools.combinations(range(6), 3), key=lambda layers: sum(float(table[i, t]) for i, t in enumerate(layers)))
        assert [pair.teacher for pair in by_similarity(table)] == [[layer] for layer in best]
    assert by_similarity(torch.tensor([[0.1, 0.9, 0.3], [0.2, 0.99, 0.4]])) == [
        LayerPair(student=0, teacher=[1]),
        LayerPair(student=1, teacher=[2]),
    ]
    with pytest.raises(KdError, match="at most 2 layers"):
        by_similarity(torch.rand(3, 2))
