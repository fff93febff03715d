"""The charts of the report. Each takes figures and returns SVG; the page has the same figures in a table."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from launcher.report.results import CurvePoint, Task
from launcher.report.retention import TaskSummary
from launcher.report.svg import SERIES, WIDTH, Chart, Scale
from launcher.report.verdicts import points

LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
MOST_CURVE_POINTS = 200


@dataclass(frozen=True)
class Place:
    """A model as a point: cost (parameters, milliseconds) and quality 0 .. 1."""

    name: str
    cost: float
    quality: float


def against_cost(name: str, places: Sequence[Place], series: dict[str, int], cost: str, form: Callable[[float], str], quality: str) -> str:
    """Quality against a cost on a logarithmic axis."""
    listed = "; ".join(f"{place.name}: {form(place.cost)}, {points(place.quality)}" for place in places)
    chart = Chart(name, f"{quality} against {cost}", f"One point per model. {listed}.", 280)
    x = Scale(min(p.cost for p in places), max(p.cost for p in places), LEFT, WIDTH - RIGHT, logarithmic=True)
    y = Scale(min(p.quality for p in places), max(p.quality for p in places), chart.height - BOTTOM, TOP)
    axes(chart, x, y, cost, form)
    for place in places:
        chart.mark(x(place.cost), y(place.quality), series[place.name], f"{place.name}: {form(place.cost)}, {points(place.quality)}")
    return chart.markup()


def bars(name: str, summary: TaskSummary, series: dict[str, int]) -> str:
    """Each model's metric as a bar with its interval, and the constant predictor as a line."""
    task, rows = summary.task, summary.rows
    listed = "; ".join(f"{row.model}: {points(row.value)}, interval {points(row.low)} to {points(row.high)}" for row in rows)
    step = 38
    chart = Chart(
        name,
        f"{task.title}: {task.metric_title} of each model",
        f"{listed}. Constant predictor: {points(task.constant)}.",
        TOP + step * len(rows) + BOTTOM,
    )
    bottom = chart.height - BOTTOM
    x = Scale(min(0.0, task.constant, *(row.low for row in rows)), max(0.0, task.constant, *(row.high for row in rows)), 8, WIDTH - 8)
    zero = x(0.0)
    for tick in x.ticks(6):
        chart.line(x(tick), TOP, x(tick), bottom, "grid")
        chart.text(x(tick), bottom + 15, _tick(tick), "middle")
    for place, row in enumerate(rows):
        top = TOP + step * place
        chart.text(9, top + 12, f"{row.model}: {points(row.value)}", style="name")
        begin, end = sorted((zero, x(row.value)))
        chart.bar(begin, top + 17, end - begin, 14, f"bar s{series[row.model] % SERIES}")
        chart.line(x(row.low), top + 24, x(row.high), top + 24, "interval")
        for edge in (row.low, row.high):
            chart.line(x(edge), top + 20, x(edge), top + 28, "interval")
    chart.line(x(task.constant), TOP, x(task.constant), bottom, "constant")
    chart.text(
        WIDTH / 2, chart.height - 6, f"{task.metric_title} x 100; dashed line: constant predictor, {points(task.constant)}", "middle"
    )
    return chart.markup()


def curves(name: str, task: Task, series: dict[str, int]) -> str | None:
    """The metric on the development set against updates, one line per run. None where no run has a curve."""
    runs = [(model.name, run.seed, run.curve) for model in task.models for run in model.runs if run.curve]
    if not runs:
        return None
    ends = "; ".join(f"{model} seed {seed}: {points(curve[-1].value)} after {curve[-1].update:,} updates" for model, seed, curve in runs)
    chart = Chart(name, f"{task.title}: {task.metric_title} while training", f"One line per run. {ends}.", 260)
    values = [point.value for _, _, curve in runs for point in curve]
    updates = [point.update for _, _, curve in runs for point in curve]
    x = Scale(min(updates), max(updates), LEFT, WIDTH - RIGHT)
    y = Scale(min(*values, task.constant), max(values), chart.height - BOTTOM, TOP)
    axes(chart, x, y, "updates", lambda value: f"{value:,.0f}")
    chart.line(LEFT, y(task.constant), WIDTH - RIGHT, y(task.constant), "constant")
    for model, _, curve in runs:
        number = series[model]
        places = [(x(point.update), y(point.value)) for point in _thinned(curve)]
        chart.path(places, f"curve s{number % SERIES} d{number % 4}")
    return chart.markup()


def axes(chart: Chart, x: Scale, y: Scale, title: str, form: Callable[[float], str]) -> None:
    """Lines, ticks and the title of the horizontal axis. form: the text of its ticks."""
    bottom = chart.height - BOTTOM
    for tick in y.ticks():
        chart.line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid")
        chart.text(LEFT - 6, y(tick) + 4, _tick(tick), "end")
    for tick in x.ticks(4):
        chart.line(x(tick), bottom, x(tick), bottom + 4, "axis")
        chart.text(x(tick), bottom + 17, form(tick), "middle")
    chart.line(LEFT, bottom, WIDTH - RIGHT, bottom, "axis")
    chart.text((LEFT + WIDTH - RIGHT) / 2, chart.height - 6, title, "middle")


def _thinned(curve: Sequence[CurvePoint]) -> list[CurvePoint]:
    """At most MOST_CURVE_POINTS points, the last one always."""
    step = -(-len(curve) // MOST_CURVE_POINTS)
    return [*curve[:-1:step], curve[-1]]


def _tick(value: float) -> str:
    return f"{value * 100:.10g}"
