"""Pairs of students of one task that differ in one part only: pretraining, distillation on the task, transfer set, or initialisation."""

import itertools
from dataclasses import dataclass
from typing import Literal

from launcher.report.results import Model, Task

Part = Literal["pretraining", "task", "transfer", "start"]
TITLES: dict[Part, str] = {
    "pretraining": "distillation in pretraining",
    "task": "distillation on the task",
    "transfer": "transfer set",
    "start": "trained weights at the start",
}
EXPECTED: dict[Part, tuple[str, ...]] = {
    "pretraining": ("start",),
    "task": ("objective", "phases"),
    "transfer": (),
    "start": ("start",),
}
"""Settings that differ with a part, because they belong to it."""
SAME_SIZE = 0.03
"""Students whose numbers of parameters differ by a larger share have another shape. A pooler and token types are less than that."""


@dataclass(frozen=True)
class Pair:
    """Two students by name: `having` has the part, `lacking` lacks it. also: further settings in which they differ, as text."""

    part: Part
    having: str
    lacking: str
    also: tuple[str, ...] = ()


def pairs(task: Task) -> list[Pair]:
    """Every pair of a task's students that differ in one part, by part."""
    found = [pair for one, other in itertools.permutations(task.students, 2) if (pair := _pair(one, other)) is not None]
    return sorted(found, key=lambda pair: list(TITLES).index(pair.part))


def parts_of(model: Model) -> dict[Part, bool]:
    """Part -> true if a student has it."""
    return {
        "pretraining": model.role in ("distilled", "pretraining_distilled"),
        "task": model.role in ("distilled", "task_distilled"),
        "transfer": model.transfer_set,
        "start": not model.random_start,
    }


def same_size(one: Model, other: Model) -> bool:
    """True if two students have nearly as many parameters, or if one of the numbers is unknown."""
    if one.parameters is None or other.parameters is None:
        return True
    return abs(one.parameters - other.parameters) <= SAME_SIZE * max(one.parameters, other.parameters)


def _pair(one: Model, other: Model) -> Pair | None:
    """The pair if `one` has exactly one part that `other` lacks, and the two are alike otherwise."""
    ours, theirs = parts_of(one), parts_of(other)
    differing = [part for part in TITLES if ours[part] != theirs[part]]
    if len(differing) != 1 or not ours[differing[0]] or not same_size(one, other):
        return None
    (part,) = differing
    pretrained = [model.pretraining_tokens or 0 for model in (one, other)]
    if pretrained[0] != pretrained[1] and (part != "pretraining" or pretrained[1]):
        return None
    if part in ("task", "transfer") and ours["pretraining"] and one.settings.get("start") != other.settings.get("start"):
        return None
    return Pair(part, one.name, other.name, tuple(differences(one, other, EXPECTED[part])))


def differences(one: Model, other: Model, expected: tuple[str, ...] = ()) -> list[str]:
    """The settings in which two models differ, as `name: value and value`."""
    names = dict.fromkeys(name for name in (*one.settings, *other.settings) if name not in expected)
    values = {name: [model.settings.get(name, "default") for model in (one, other)] for name in names}
    return [f"{name}: {first} and {second}" for name, (first, second) in values.items() if first != second]
