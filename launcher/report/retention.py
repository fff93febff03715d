"""Retention: each student's score over its teacher's, per task and on average, with the noise of each figure.

The standard error of a difference combines two independent parts: the bootstrap over examples, paired where predictions are there, and
the spread over seeds. A difference within two standard errors is noise. One seed has no spread, so its noise is understated.
"""

import math
import statistics as plain
from dataclasses import dataclass, field
from pathlib import Path

from kd.tasks.metrics.resampling import Weighted
from kd.tasks.metrics.statistics import macro, meaningful, paired_bootstrap, paired_ratio, retained, retained_above_constant
from launcher.report.parts import Pair, pairs
from launcher.report.predictions import TaskPredictions
from launcher.report.results import Model, Results, Role, Task


@dataclass(frozen=True)
class Difference:
    """A student's metric minus that of `other`. paired: the bootstrap used the same examples for both."""

    other: str
    value: float
    standard_error: float
    paired: bool
    seeds: int
    """The smaller number of seeds of the two."""

    @property
    def within_noise(self) -> bool:
        return abs(self.value) <= 2 * self.standard_error


@dataclass(frozen=True)
class Row:
    """One model on one task. value, low, high: means over seeds. spread: standard deviation over seeds; None for one seed.

    retained: None where the teacher's metric is not above 0. above_constant: None where the teacher is within two standard errors of
    constant. Both have intervals where predictions are there. For a teacher all of these are None.
    """

    task: str
    model: str
    role: Role
    value: float
    low: float
    high: float
    spread: float | None
    seeds: int
    standard_error: float
    retained: float | None = None
    retained_interval: tuple[float, float] | None = None
    above_constant: float | None = None
    above_constant_interval: tuple[float, float] | None = None
    to_teacher: Difference | None = None
    to_fine_tuned: Difference | None = None


@dataclass(frozen=True)
class TaskSummary:
    """A task's rows, teacher first. meaningful: the teacher is more than two standard errors better than constant.

    parts: for students that differ in one part only, the metric of the one that has it minus the other's.
    """

    task: Task
    rows: list[Row]
    meaningful: bool
    parts: dict[Pair, Difference] = field(default_factory=dict)


@dataclass(frozen=True)
class Macro:
    """One student over several tasks, each with the same weight.

    retained: mean metric / the teacher's mean metric.
    above_constant: the same after subtracting each task's constant, over the tasks whose teacher is better than constant. None if there is
    no such task.
    spread: standard deviation of `value` over common seeds.
    """

    model: str
    role: Role
    tasks: list[str]
    value: float
    teacher: float
    spread: float | None
    retained: float | None
    above_constant: float | None
    not_meaningful: list[str]


def summarise(results: Results, predictions: dict[str, TaskPredictions]) -> list[TaskSummary]:
    """Each task's summary, in the order of the results."""
    return [_task(task, predictions[task.name]) for task in results.tasks]


def read_all(results: Results, folder: Path) -> dict[str, TaskPredictions]:
    """The predictions of each task, from files below `folder`."""
    return {task.name: TaskPredictions(task, folder) for task in results.tasks}


def macros(summaries: list[TaskSummary], without_noisy: bool) -> list[Macro]:
    """One row per student, in the order of first appearance. without_noisy: leave out the tasks marked small_and_noisy."""
    kept = [summary for summary in summaries if not (without_noisy and summary.task.small_and_noisy)]
    students = {row.model: row.role for summary in kept for row in summary.rows if row.role != "teacher"}
    return [_macro(name, role, kept) for name, role in students.items()]


def _macro(name: str, role: Role, summaries: list[TaskSummary]) -> Macro:
    pairs = {s.task.title: (s, row) for s in summaries for row in s.rows if row.model == name}
    student = macro({title: row.value for title, (_, row) in pairs.items()})
    teacher = macro({title: s.rows[0].value for title, (s, _) in pairs.items()})
    assert student is not None
    assert teacher is not None
    solid = {title: pair for title, pair in pairs.items() if pair[0].meaningful}
    ours = macro({title: row.value - s.task.constant for title, (s, row) in solid.items()})
    theirs = macro({title: s.rows[0].value - s.task.constant for title, (s, _) in solid.items()})
    runs = [{run.seed: run.value for run in s.task.model(name).runs} for s, _ in pairs.values()]
    seeds = set.intersection(*(set(run) for run in runs))
    by_seed = [plain.fmean(run[seed] for run in runs) for seed in sorted(seeds)]
    return Macro(
        model=name,
        role=role,
        tasks=list(pairs),
        value=student,
        teacher=teacher,
        spread=plain.stdev(by_seed) if len(by_seed) > 1 else None,
        retained=retained(student, teacher),
        above_constant=None if ours is None or theirs is None else retained(ours, theirs),
        not_meaningful=[title for title in pairs if title not in solid],
    )


def _task(task: Task, predictions: TaskPredictions) -> TaskSummary:
    weighted = {model.name: predictions.weighted(model) for model in task.models}
    teacher = _plain_row(task, task.teacher)
    rows = [teacher, *(_student(task, model, teacher, weighted) for model in task.students)]
    of = {row.model: row for row in rows}
    parts = {pair: _difference(task, of[pair.having], of[pair.lacking], weighted) for pair in pairs(task)}
    return TaskSummary(task, rows, meaningful(teacher.value, task.constant, teacher.standard_error), parts)


def _plain_row(task: Task, model: Model) -> Row:
    values = [run.value for run in model.runs]
    low, high, error = (plain.fmean(getattr(run, name) for run in model.runs) for name in ("low", "high", "standard_error"))
    spread = plain.stdev(values) if len(values) > 1 else None
    return Row(task.name, model.name, model.role, plain.fmean(values), low, high, spread, len(values), error)


def _student(task: Task, model: Model, teacher: Row, weighted: dict[str, Weighted | None]) -> Row:
    row = _plain_row(task, model)
    above = retained_above_constant(row.value, teacher.value, task.constant, teacher.standard_error)
    ours, theirs = weighted[model.name], weighted[teacher.model]
    intervals: list[tuple[float, float] | None] = [None, None]
    if ours is not None and theirs is not None:
        if teacher.value > 0:
            intervals[0] = paired_ratio(ours, theirs, task.examples)
        if above is not None:
            intervals[1] = paired_ratio(ours, theirs, task.examples, constant=task.constant)
    other = None if model.without_teacher is None else task.model(model.without_teacher)
    return Row(
        **{name: getattr(row, name) for name in ("task", "model", "role", "value", "low", "high", "spread", "seeds", "standard_error")},
        retained=retained(row.value, teacher.value),
        retained_interval=intervals[0],
        above_constant=above,
        above_constant_interval=intervals[1],
        to_teacher=_difference(task, row, teacher, weighted),
        to_fine_tuned=None if other is None else _difference(task, row, _plain_row(task, other), weighted),
    )


def _difference(task: Task, row: Row, other: Row, weighted: dict[str, Weighted | None]) -> Difference:
    ours, theirs = weighted[row.model], weighted[other.model]
    paired = ours is not None and theirs is not None
    if ours is not None and theirs is not None:
        examples = paired_bootstrap(ours, theirs, task.examples).standard_error
    else:
        examples = math.hypot(row.standard_error, other.standard_error)
    seeds = math.hypot(*((one.spread or 0.0) / math.sqrt(one.seeds) for one in (row, other)))
    return Difference(other.model, row.value - other.value, math.hypot(examples, seeds), paired, min(row.seeds, other.seeds))
