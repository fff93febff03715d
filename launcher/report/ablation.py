"""The table of what each part of the recipe is worth: differences of students that differ in one part, per task and on average."""

import math
from dataclasses import dataclass
from statistics import fmean

from launcher.report.parts import TITLES, Pair
from launcher.report.retention import Difference, TaskSummary


@dataclass(frozen=True)
class PartValue:
    """One pair of students. tasks: task title -> difference. mean: over those tasks, each with the same weight. tokens: of pretraining."""

    pair: Pair
    tasks: dict[str, Difference]
    mean: Difference
    tokens: int | None

    @property
    def title(self) -> str:
        return TITLES[self.pair.part]


def part_values(summaries: list[TaskSummary]) -> list[PartValue]:
    """One row per pair, in the order of the parts."""
    found: dict[Pair, dict[str, Difference]] = {}
    for summary in summaries:
        for pair, difference in summary.parts.items():
            found.setdefault(pair, {})[summary.task.title] = difference
    tokens = {model.name: model.pretraining_tokens for summary in summaries for model in summary.task.students}
    rows = [
        PartValue(pair, tasks, _mean(tasks), tokens[pair.having] if pair.part == "pretraining" else None) for pair, tasks in found.items()
    ]
    return sorted(rows, key=lambda row: list(TITLES).index(row.pair.part))


def _mean(tasks: dict[str, Difference]) -> Difference:
    differences = list(tasks.values())
    error = math.hypot(*(one.standard_error for one in differences)) / len(differences)
    first = differences[0]
    return Difference(
        first.other,
        fmean(one.value for one in differences),
        error,
        all(one.paired for one in differences),
        min(one.seeds for one in differences),
    )
