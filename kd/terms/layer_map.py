"""Layer maps: the teacher layers that each student layer learns from.

`resolve_layer_map` turns any map into pairs of layer numbers. It is called once per term, before training. `by_similarity` reads a map
off a table of layer similarities (linear CKA, kd.evaluation.cka).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from kd.errors import KdError

if TYPE_CHECKING:
    from torch import Tensor

NamedMap = Literal["uniform", "every_other", "first", "last", "skip", "pkd_last", "mean", "final", "cka", "copied"]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


class LayerPair(BaseModel):
    """One student layer and the teacher layers it learns from. Several teacher layers are averaged. -1 is the last layer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student: int
    teacher: Annotated[list[int], BeforeValidator(_as_list), Field(min_length=1)]


LayerMaps = dict[int, "list[LayerPair]"]
"""Pairs by the teacher's number."""
LayerMap = NamedMap | Annotated[list[LayerPair], Field(min_length=1)]


@dataclass(frozen=True)
class LayerSources:
    """The maps that a configuration does not hold.

    copied: the teacher layer that each student layer was copied from. learned: the map read from layer similarities, by teacher number.
    """

    copied: Sequence[int] | None = None
    learned: Mapping[int, list[LayerPair]] = field(default_factory=dict)


def resolve_layer_map(
    layer_map: LayerMap, student: int, teacher: int, where: str, sources: LayerSources | None = None, number: int = 0
) -> list[LayerPair]:
    """The pairs of a map for a student and a teacher of so many layers, by student layer. number: the teacher's.

    With S student and T teacher layers, i is a student layer:

    - uniform: last of the i-th of S equal blocks, floor((i + 1) T / S) - 1 (TinyBERT's g(m) = m T / S)
    - every_other: first of the i-th block, floor(i T / S) (the layers that student.layers: every_other copies)
    - first: i
    - last: T - S + i
    - skip: uniform without the student's last layer (PKD-Skip)
    - pkd_last: last without the student's last layer (PKD-Last)
    - mean: all layers of the i-th block, averaged
    - final: the student's last layer and the teacher's last layer
    - copied, cka: from `sources`

    Raises KdError for layers out of range, a student layer that is named twice, and more student than teacher layers.
    """
    sources = sources or LayerSources()
    if layer_map == "copied" and sources.copied is not None:
        return [LayerPair(student=i, teacher=[layer]) for i, layer in enumerate(sources.copied)]
    if layer_map == "cka" and number in sources.learned:
        return sources.learned[number]
    if isinstance(layer_map, list):
        return _explicit(layer_map, student, teacher, where)
    if layer_map in ("cka", "copied"):
        raise KdError(f"{where}.layer_map: expected the layers that {layer_map} stands for, got none; name another map, or pairs")
    if layer_map == "final":
        return [LayerPair(student=student - 1, teacher=[teacher - 1])]
    if student > teacher:
        raise KdError(
            f"{where}.layer_map: expected a student of at most {teacher} layers, the teacher's, for {layer_map}, got {student}; name pairs"
        )
    starts = [i * teacher // student for i in range(student + 1)]
    blocks = [list(range(start, end)) for start, end in pairwise(starts)]
    teachers = {
        "uniform": [block[-1:] for block in blocks],
        "every_other": [block[:1] for block in blocks],
        "first": [[i] for i in range(student)],
        "last": [[teacher - student + i] for i in range(student)],
        "mean": blocks,
    }
    teachers |= {"skip": teachers["uniform"][:-1], "pkd_last": teachers["last"][:-1]}
    if not teachers[layer_map]:
        raise KdError(f"{where}.layer_map: expected a student of at least 2 layers for {layer_map}, got {student}; use final or uniform")
    return [LayerPair(student=i, teacher=layers) for i, layers in enumerate(teachers[layer_map])]


def by_similarity(table: Tensor) -> list[LayerPair]:
    """The map with the largest sum of similarities [S, T]. Each student layer gets one teacher layer, in ascending order.

    Order is kept because a layer builds on those below it. Exact, by dynamic programming. Equal sums: the lower layers.
    Raises KdError when there are more student than teacher layers.
    """
    students, teachers = table.shape
    check_learned(students, teachers)
    values = table.double().tolist()
    # best[t]: the largest sum for the student layers so far with the last of them at t, and the layers of all
    best: list[tuple[float, list[int]]] = [(value, [t]) for t, value in enumerate(values[0])]
    for row in values[1:]:
        following: list[tuple[float, list[int]]] = [(float("-inf"), [])]
        for t in range(1, teachers):
            total, path = max(best[:t], key=lambda best_of: best_of[0])
            following.append((total + row[t], [*path, t]))
        best = following
    _, path = max(best, key=lambda best_of: best_of[0])
    return [LayerPair(student=i, teacher=[t]) for i, t in enumerate(path)]


def check_learned(student: int, teacher: int) -> None:
    """Raise KdError, one line, where a student has too many layers for a learned map."""
    if student > teacher:
        raise KdError(f"layer_map: expected a student of at most {teacher} layers, the teacher's, for cka, got {student}; name pairs")


def _explicit(pairs: list[LayerPair], student: int, teacher: int, where: str) -> list[LayerPair]:
    by_student = {}
    for pair in pairs:
        for name, layers, count in (("student", [pair.student], student), ("teacher", pair.teacher, teacher)):
            wrong = [layer for layer in layers if not -count <= layer < count]
            if wrong:
                raise KdError(
                    f"{where}.layer_map: expected {name} layers from 0 to {count - 1} (or -{count} to -1, from the end), "
                    f"got {wrong[0]}; correct the pair"
                )
        layer = pair.student % student
        if layer in by_student:
            raise KdError(f"{where}.layer_map: expected each student layer once, got {pair.student} twice; give it several teacher layers")
        by_student[layer] = LayerPair(student=layer, teacher=sorted({index % teacher for index in pair.teacher}))
    return [by_student[layer] for layer in sorted(by_student)]


def to_json(maps: LayerMaps) -> dict[str, Any]:
    """Maps as plain values, for a checkpoint."""
    return {str(number): [pair.model_dump(mode="json") for pair in pairs] for number, pairs in maps.items()}


def from_json(values: Mapping[str, Any]) -> LayerMaps:
    """The inverse of `to_json`."""
    return {int(number): [LayerPair(**pair) for pair in pairs] for number, pairs in values.items()}


def describe(maps: LayerMaps) -> str:
    """`student layer 0 from 1, 1 from 3`, with the teacher's number where there are several."""
    lines = []
    for number, pairs in maps.items():
        layers = ", ".join(f"{pair.student} from {' and '.join(map(str, pair.teacher))}" for pair in pairs)
        lines.append(f"student layer {layers}" + (f" of teacher {number}" if len(maps) > 1 else ""))
    return "; ".join(lines)
