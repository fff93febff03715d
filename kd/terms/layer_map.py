"""Which teacher layers a student layer learns from: named maps, explicit pairs, and one learned from data.

Layers count from 0, and from the end where negative. `settle` turns any map into pairs for the layers there are; `by_similarity` reads one
off a table of similarities (linear CKA, kd.evaluation.cka).
"""

from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field
from torch import Tensor

from kd.errors import KdError

NamedMap = Literal["uniform", "every_other", "first", "last", "skip", "pkd_last", "mean", "final", "cka", "copied"]


def _as_list(value: object) -> object:
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


class LayerPair(BaseModel):
    """One student layer and the teacher layers it learns from; several are averaged."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    student: int
    teacher: Annotated[list[int], BeforeValidator(_as_list), Field(min_length=1)]


LayerMap = NamedMap | Annotated[list[LayerPair], Field(min_length=1)]


def settle(layer_map: LayerMap, student: int, teacher: int, where: str) -> list[LayerPair]:
    """The pairs of a map for a student and a teacher of so many layers, by student layer.

    With S student and T teacher layers, i a student layer:
    uniform      last of the i-th of S equal blocks, floor((i + 1) T / S) - 1 (TinyBERT's g(m) = m T / S)
    every_other  first of the i-th block, floor(i T / S) (which student.layers: every_other copies)
    first, last  i; T - S + i
    skip         uniform without the student's last layer (PKD-Skip)
    pkd_last     last without the student's last layer (PKD-Last)
    mean         all layers of the i-th block, averaged
    final        the student's last layer and the teacher's last layer
    Raises KdError for layers out of range, a student layer that stands twice, more student than teacher layers, and for `cka` and
    `copied`, which data, and how the student was made, have to settle first.
    """
    if isinstance(layer_map, list):
        return _explicit(layer_map, student, teacher, where)
    if layer_map in ("cka", "copied"):
        raise KdError(f"{where}.layer_map: expected {layer_map} to be settled before, got it unsettled; name a map or pairs")
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
    """The map that a table of similarities [S, T] speaks for: each student layer one teacher layer, in the same order, largest sum.

    Order is kept because a layer builds on those below it. Found exactly (dynamic programming); of equal sums, the lower layers.
    Raises KdError when there are more student than teacher layers.
    """
    students, teachers = table.shape
    check_learned(students, teachers)
    values = table.double().tolist()
    # best[t]: largest sum for the student layers so far, the last of them at t, and where the others are
    best: list[tuple[float, list[int]]] = [(value, [t]) for t, value in enumerate(values[0])]
    for row in values[1:]:
        following: list[tuple[float, list[int]]] = [(float("-inf"), [])]
        for t in range(1, teachers):
            total, path = max(best[:t], key=lambda found: found[0])
            following.append((total + row[t], [*path, t]))
        best = following
    _, path = max(best, key=lambda found: found[0])
    return [LayerPair(student=i, teacher=[t]) for i, t in enumerate(path)]


def check_learned(student: int, teacher: int) -> None:
    """Raise KdError, one line, where a student has too many layers for a learned map."""
    if student > teacher:
        raise KdError(f"layer_map: expected a student of at most {teacher} layers, the teacher's, for cka, got {student}; name pairs")


def _explicit(pairs: list[LayerPair], student: int, teacher: int, where: str) -> list[LayerPair]:
    settled = {}
    for pair in pairs:
        for name, layers, count in (("student", [pair.student], student), ("teacher", pair.teacher, teacher)):
            wrong = [layer for layer in layers if not -count <= layer < count]
            if wrong:
                raise KdError(
                    f"{where}.layer_map: expected {name} layers from 0 to {count - 1} (or -{count} to -1, from the end), "
                    f"got {wrong[0]}; correct the pair"
                )
        own = pair.student % student
        if own in settled:
            raise KdError(f"{where}.layer_map: expected each student layer once, got {pair.student} twice; give it several teacher layers")
        settled[own] = LayerPair(student=own, teacher=sorted({layer % teacher for layer in pair.teacher}))
    return [settled[own] for own in sorted(settled)]
