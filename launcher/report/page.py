"""The report as one self-contained HTML page: inline style and SVG, no script, no request. Texts of examples are untrusted and escaped."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean as mean
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from launcher.report import charts
from launcher.report.ablation import part_values
from launcher.report.costs import cost_charts_of, cost_rows
from launcher.report.predictions import Disagreement, TaskPredictions
from launcher.report.pretraining import PretrainingCurve, chart_of, pretraining_curve, tokens_text
from launcher.report.published import PUBLISHED, PUBLISHED_TASKS
from launcher.report.results import ROLE_TITLES, Model, Results, Task
from launcher.report.retention import Row, TaskSummary, macros
from launcher.report.svg import legend_line, legend_mark
from launcher.report.verdicts import points, verdicts
from launcher.text import share

FOLDER = Path(__file__).parent
MOST_BYTES = 1_500_000
EXAMPLES = (8, 3, 0)
"""Disagreements shown per student: fewer where the page would be larger than MOST_BYTES."""
TEXT_LIMIT = 400
WEIGHTS = {"stop": "Against", "caution": "Caution", "fine": "In favour"}


@dataclass(frozen=True)
class Confusion:
    """One model's confusion matrix: (label, [(count, share of the row)])."""

    model: str
    names: list[str]
    rows: list[tuple[str, list[tuple[int, str]]]]


@dataclass(frozen=True)
class Part:
    """The part of the page for one task."""

    summary: TaskSummary
    names: list[str]
    more: dict[str, dict[str, str]]
    """Further metrics: name -> model -> mean over seeds."""
    bars: Markup
    curves: Markup | None
    confusions: list[Confusion]
    disagreements: list[tuple[str, list[Disagreement]]]


def page(results: Results, summaries: list[TaskSummary], predictions: dict[str, TaskPredictions]) -> str:
    """The page as HTML, below MOST_BYTES unless the figures alone are larger."""
    for examples in EXAMPLES:
        text = _render(results, summaries, predictions, examples)
        if len(text.encode("utf-8", "replace")) < MOST_BYTES:
            break
    return text


def averages(summaries: list[TaskSummary]) -> list[tuple[str, list[Any]]]:
    """The macro averages with their captions: over all tasks, and without the small and noisy ones where there are any."""
    noisy = [summary.task.title for summary in summaries if summary.task.small_and_noisy]
    tables = [(f"Mean over {_count(len(summaries), 'task')}", macros(summaries, without_noisy=False))]
    if noisy and len(noisy) < len(summaries):
        title = f"Mean over {_count(len(summaries) - len(noisy), 'task')}, without the small and noisy {', '.join(noisy)}"
        tables.append((title, macros(summaries, without_noisy=True)))
    return tables


def _render(results: Results, summaries: list[TaskSummary], predictions: dict[str, TaskPredictions], examples: int) -> str:
    series = {name: number for number, name in enumerate(_names(results))}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((FOLDER / "page.html").read_text(encoding="utf-8"))
    cost_charts, cost_missing, cost_series = cost_charts_of(results, series)
    pretraining = pretraining_curve(summaries)
    return template.render(
        results=results,
        summaries=summaries,
        style=Markup((FOLDER / "page.css").read_text(encoding="utf-8")),
        averages=averages(summaries),
        verdicts=[(summary, verdicts(summary, results.margin)) for summary in summaries],
        parts=[_part(number, summary, predictions[summary.task.name], series, examples) for number, summary in enumerate(summaries)],
        series=series,
        marks={name: Markup(legend_mark(number)) for name, number in series.items()},
        lines={name: Markup(legend_line(number)) for name, number in series.items()},
        part_values=part_values(summaries),
        pretraining=pretraining,
        pretraining_charts=[] if pretraining is None else _pretraining_charts(pretraining, series),
        tokens_text=tokens_text,
        cost_charts=[(title, Markup(chart)) for title, chart in cost_charts],
        cost_series=cost_series,
        cost_marks={name: Markup(legend_mark(number)) for name, number in cost_series.items()},
        cost_missing=cost_missing,
        costs=cost_rows(results),
        roles=ROLE_TITLES,
        weights=WEIGHTS,
        published=PUBLISHED,
        published_tasks=PUBLISHED_TASKS,
        points=points,
        percent=percent,
        bound=lambda value: percent(value).removesuffix(" %"),
        signed=lambda value: f"{value * 100:+.1f}",
        millions=lambda count: f"{count / 1e6:.1f} M",
        clipped=clipped,
    )


def _part(number: int, summary: TaskSummary, predictions: TaskPredictions, series: dict[str, int], examples: int) -> Part:
    task = summary.task
    curves = charts.curves(f"curves-{number}", task, series)
    distilled = [model for model in task.students if model.role != "fine_tuned"]
    pairs = [(model.name, predictions.disagreements(model, examples)) for model in distilled]
    matrices = [_confusion(predictions, model) for model in task.models]
    return Part(
        summary=summary,
        names=[model.name for model in task.models],
        more=_further(task),
        bars=Markup(charts.bars(f"bars-{number}", summary, series)),
        curves=None if curves is None else Markup(curves),
        confusions=[matrix for matrix in matrices if matrix is not None],
        disagreements=[(name, rows) for name, rows in pairs if rows],
    )


def _further(task: Task) -> dict[str, dict[str, str]]:
    """The means of the metrics that every run has besides the task's own."""
    runs = [run for model in task.models for run in model.runs]
    names = [name for name in runs[0].scores if name != task.metric and all(name in run.scores for run in runs)]
    return {name: {model.name: points(mean([run.scores[name] for run in model.runs])) for model in task.models} for name in names}


def _confusion(predictions: TaskPredictions, model: Model) -> Confusion | None:
    counts = predictions.confusion(model)
    if counts is None:
        return None
    labels = predictions.task.labels
    names = [labels[place] if place < len(labels) else str(place) for place in range(len(counts))]
    rows = [(name, [(int(cell), f"{cell / max(row.sum(), 1):.2f}") for cell in row]) for name, row in zip(names, counts, strict=True)]
    return Confusion(model.name, names, rows)


def _pretraining_charts(curve: PretrainingCurve, series: dict[str, int]) -> list[tuple[str, Markup]]:
    """The chart of the mean where it is over several tasks, then one for each task."""
    tasks: list[str | None] = [*([None] if len(curve.common) > 1 else []), *curve.tasks]
    return [(task or "Mean score", Markup(chart_of(f"pretraining-{place}", curve, task, series))) for place, task in enumerate(tasks)]


def _names(results: Results) -> list[str]:
    """The models' names in the order of first appearance."""
    return list(dict.fromkeys(model.name for task in results.tasks for model in task.models))


def percent(value: float | None) -> str:
    """A share; without an upper bound where a resampled teacher is no better than constant."""
    return "unbounded" if value == float("inf") else share(value)


def clipped(text: str) -> str:
    """At most TEXT_LIMIT characters on one line, without control characters."""
    line = " ".join("".join(letter if letter.isprintable() else " " for letter in text[: 4 * TEXT_LIMIT]).split())
    return line if len(line) <= TEXT_LIMIT else f"{line[:TEXT_LIMIT]}…"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number != 1)}"


def rows_of(summaries: Sequence[TaskSummary]) -> list[tuple[TaskSummary, Row]]:
    """Every row with its task."""
    return [(summary, row) for summary in summaries for row in summary.rows]
