"""Each task's score, and their mean, against the tokens that a student's pretraining read: figures and charts."""

import math
from dataclasses import dataclass
from statistics import fmean

from launcher.report.charts import BOTTOM, LEFT, RIGHT, TOP, axes
from launcher.report.parts import differences, parts_of, same_size
from launcher.report.results import Model, Role
from launcher.report.retention import Row, TaskSummary
from launcher.report.svg import SERIES, WIDTH, Chart, Scale, ScaleWithZero
from launcher.report.verdicts import points

BESIDE = (0, 7, -7, 14, -14)
"""Pixels by which students with the same tokens are moved sideways."""


@dataclass(frozen=True)
class Score:
    """A score with the ends of its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class CurveStudent:
    """A student whose pretraining tokens are known. scores: task title -> score. mean: over the tasks that every such student has."""

    model: str
    role: Role
    tokens: int
    scores: dict[str, Score]
    mean: Score | None


@dataclass(frozen=True)
class PretrainingCurve:
    """Students by their tokens. lines: names of those that differ in their pretraining only. tasks: titles, as the charts show them.

    common: the tasks of the mean. teachers: the teacher's score on each task. teacher_mean: over the common tasks.
    """

    students: list[CurveStudent]
    lines: list[list[str]]
    tasks: list[str]
    common: list[str]
    teachers: dict[str, float]
    teacher_mean: float | None


def pretraining_curve(summaries: list[TaskSummary]) -> PretrainingCurve | None:
    """The curve, or None where fewer than two students have a known number of tokens, or all have the same."""
    models: dict[str, Model] = {}
    for summary in summaries:
        for model in summary.task.students:
            if model.pretraining_tokens is not None:
                models.setdefault(model.name, model)
    if len({model.pretraining_tokens for model in models.values()}) < 2:
        return None
    rows = {name: {s.task.title: row for s in summaries for row in s.rows if row.model == name} for name in models}
    common = [s.task.title for s in summaries if all(s.task.title in having for having in rows.values())]
    students = [
        CurveStudent(
            name,
            model.role,
            model.pretraining_tokens or 0,
            {title: Score(row.value, row.low, row.high) for title, row in rows[name].items()},
            _mean([rows[name][title] for title in common]) if common else None,
        )
        for name, model in models.items()
    ]
    teachers = {s.task.title: s.rows[0].value for s in summaries if any(s.task.title in having for having in rows.values())}
    return PretrainingCurve(
        sorted(students, key=lambda one: one.tokens),
        _lines(list(models.values())),
        list(teachers),
        common,
        teachers,
        fmean(teachers[title] for title in common) if common else None,
    )


def tokens_text(tokens: float) -> str:
    """A number of tokens as an axis shows it: `0`, `369 k`, `1.2 M`."""
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if tokens >= unit:
            return f"{tokens / unit:.3g}{name}"
    return f"{tokens:.0f}"


def chart_of(name: str, curve: PretrainingCurve, task: str | None, series: dict[str, int]) -> str:
    """One chart as SVG. task: a task's title, or None for the mean over the common tasks."""
    scores = {one.model: one.mean if task is None else one.scores.get(task) for one in curve.students}
    shown = {one.model: (one, score) for one in curve.students if (score := scores[one.model]) is not None}
    teacher = curve.teacher_mean if task is None else curve.teachers[task]
    assert teacher is not None
    title = f"{'Mean score' if task is None else task} against pretraining tokens"
    listed = "; ".join(
        f"{one.model}, {tokens_text(one.tokens)} tokens: {points(score.value)}, interval {points(score.low)} to {points(score.high)}"
        for one, score in shown.values()
    )
    chart = Chart(name, title, f"{listed}. Teacher: {points(teacher)}.", 260)
    x = ScaleWithZero([one.tokens for one, _ in shown.values()], LEFT, WIDTH - RIGHT)
    ends = [teacher, *(end for _, score in shown.values() for end in (score.low, score.high))]
    y = Scale(min(ends), max(ends), chart.height - BOTTOM, TOP)
    axes(chart, x, y, f"pretraining tokens; dashed line: teacher, {points(teacher)}", tokens_text)
    if x.zero is not None and x.begin > x.zero:
        for shift in (-3, 3):  # the axis is broken between 0 and the logarithmic part
            middle = x.begin - 8 + shift
            chart.line(middle - 3, chart.height - BOTTOM + 5, middle + 3, chart.height - BOTTOM - 5, "axis")
    chart.line(LEFT, y(teacher), WIDTH - RIGHT, y(teacher), "constant")
    across = _places([one for one, _ in shown.values()], x)
    for line in curve.lines:
        names = [model for model in line if model in shown]
        if len(names) > 1:
            chart.path([(across[model], y(shown[model][1].value)) for model in names], f"joined s{series[names[-1]] % SERIES}")
    for model, (one, score) in shown.items():
        chart.line(across[model], y(score.low), across[model], y(score.high), f"whisker s{series[model] % SERIES}")
        about = f"{model}: {tokens_text(one.tokens)} tokens, {points(score.value)} ({points(score.low)} to {points(score.high)})"
        chart.mark(across[model], y(score.value), series[model], about)
    return chart.markup()


def _places(students: list[CurveStudent], x: ScaleWithZero) -> dict[str, float]:
    """Each student's horizontal pixel. Students with the same tokens are drawn side by side."""
    places: dict[str, float] = {}
    for one in students:
        beside = sum(other.tokens == one.tokens for other in students if other.model in places)
        places[one.model] = x(one.tokens) + BESIDE[beside % len(BESIDE)]
    return places


def _lines(models: list[Model]) -> list[list[str]]:
    """Groups of students that are alike in all but their pretraining, in the order of their tokens. A student without any is in each."""
    groups: list[list[Model]] = []
    pretrained = [model for model in models if model.pretraining_tokens]
    for model in sorted(pretrained, key=lambda one: one.pretraining_tokens or 0):
        group = next((group for group in groups if _alike(group[0], model) and parts_of(group[0]) == parts_of(model)), None)
        groups.append([model]) if group is None else group.append(model)
    for group in groups:
        group[:0] = [model for model in models if model.pretraining_tokens == 0 and _alike(model, group[0])]
    return [[model.name for model in group] for group in groups]


def _alike(one: Model, other: Model) -> bool:
    """True if two students differ in nothing but their pretraining."""
    ours, theirs = (parts_of(model) | {"pretraining": True} for model in (one, other))
    return ours == theirs and same_size(one, other) and not differences(one, other, ("start",))


def _mean(rows: list[Row]) -> Score:
    """The mean over tasks with an interval of two standard errors, of examples and seeds."""
    value = fmean(row.value for row in rows)
    errors = (math.hypot(row.standard_error, (row.spread or 0.0) / math.sqrt(row.seeds)) for row in rows)
    error = math.hypot(*errors) / len(rows)
    return Score(value, value - 2 * error, value + 2 * error)
