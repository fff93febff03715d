"""Plots of curves as SVG, with the numbers that stand in the table below each. A curve differs by its dashes as well as its colour."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from launcher.report.svg import SERIES, WIDTH, Chart, Scale
from launcher.run_page.numbers import BUCKETS, Point, samples, thinned
from launcher.text import share

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 58, 14, 12, 40, 230
TABLE_ROWS = 12
LOGARITHMIC_FROM = 50.0
"""Ratio of the highest to the lowest value from which a logarithmic axis is used."""
Form = Callable[[float], str]


@dataclass(frozen=True)
class Curve:
    """One curve. series: its colour and dashes. points: (update, value), at least one."""

    name: str
    series: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Row:
    """A curve as numbers: (value, place) each."""

    name: str
    series: int
    first: tuple[str, str]
    lowest: tuple[str, str]
    highest: tuple[str, str]
    last: tuple[str, str]


@dataclass(frozen=True)
class Plot:
    """A figure of the page: title, SVG, the curves as rows, and some of their points as a table (heading cells, rows of cells)."""

    identity: str
    title: str
    axis: str
    svg: str
    rows: list[Row]
    table: list[list[str]]


def plot(
    identity: str,
    title: str,
    curves: Sequence[Curve],
    form: Form,
    axis: str = "update",
    buckets: int = BUCKETS,
    may_be_logarithmic: bool = False,
) -> Plot:
    """Draw curves over each other. form: writes a value. axis: name of the x-axis. buckets: see `thinned`.

    may_be_logarithmic: the values get a logarithmic axis if they span a wide range.
    """
    place = _place_form(curves)
    rows = [_row(curve, form, place) for curve in curves]
    listed = "; ".join(_spoken(row, axis) for row in rows)
    chart = Chart(identity, title, f"{_count(len(curves))} against {axis}. {listed}.", HEIGHT)
    values = [y for curve in curves for _, y in curve.points]
    places = [x for curve in curves for x, _ in curve.points]
    logarithmic = may_be_logarithmic and min(values) > 0 and max(values) / min(values) > LOGARITHMIC_FROM
    x = Scale(min(places), max(places), LEFT, WIDTH - RIGHT)
    highest = max(values) if any(values) else 0.01 if form is share else 1.0  # a curve of zeros lies on its axis
    y = Scale(min(values), highest, HEIGHT - BOTTOM, TOP, logarithmic=logarithmic)
    _axes(chart, x, y, f"{axis}{' (values on a logarithmic axis)' * logarithmic}", place, form if form is share else short)
    for curve in curves:
        drawn = [(x(at), y(value)) for at, value in thinned(curve.points, buckets)]
        style = f"s{curve.series % SERIES} d{curve.series % 4}"
        if len(drawn) > 1:
            chart.path(drawn, f"curve {style}")
        if len(drawn) < 12:
            for at, value in drawn:
                chart.line(at - 2.5, value, at + 2.5, value, f"dot s{curve.series % SERIES}")
    return Plot(identity, title, axis, chart.markup(), rows, _table(curves, form, place))


def _axes(chart: Chart, x: Scale, y: Scale, title: str, place: Form, value: Form) -> None:
    bottom = chart.height - BOTTOM
    ticks = [tick for tick in y.ticks() if TOP <= y(tick) <= bottom]
    told = [value(tick) for tick in ticks]
    if len(set(told)) < len(told):  # neighbours differ in a later digit only
        told = [f"{tick:.7g}" for tick in ticks]
    for tick, text in zip(ticks, told, strict=True):
        chart.line(LEFT, y(tick), WIDTH - RIGHT, y(tick), "grid")
        chart.text(LEFT - 6, y(tick) + 4, text, "end")
    for tick in x.ticks(5):
        if LEFT <= x(tick) <= WIDTH - RIGHT:
            chart.line(x(tick), bottom, x(tick), bottom + 4, "axis")
            chart.text(x(tick), bottom + 17, place(tick), "middle")
    chart.line(LEFT, bottom, WIDTH - RIGHT, bottom, "axis")
    chart.text((LEFT + WIDTH - RIGHT) / 2, chart.height - 6, title, "middle")


def short(value: float) -> str:
    """A tick in at most seven characters: 0.00015, 1.5k, 2M, 3e-07."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= unit:
            return f"{value / (1e3 if name == 'k' else unit):.4g}{name}"
    return f"{value:.4g}"


def _row(curve: Curve, form: Form, place: Form) -> Row:
    low, high = min(curve.points, key=lambda point: point[1]), max(curve.points, key=lambda point: point[1])
    ends = [(form(value), place(at)) for at, value in (curve.points[0], low, high, curve.points[-1])]
    return Row(curve.name, curve.series, *ends)


def _spoken(row: Row, axis: str) -> str:
    first, low, high, last = (f"{value} at {axis} {place}" for value, place in (row.first, row.lowest, row.highest, row.last))
    return f"{row.name}: from {first} to {last}; lowest {low}, highest {high}"


def _table(curves: Sequence[Curve], form: Form, place: Form) -> list[list[str]]:
    """The values of all curves at some of the places of the longest one. A curve without a point there has an empty cell."""
    longest = max(curves, key=lambda curve: len(curve.points))
    known = [dict(curve.points) for curve in curves]
    return [[place(at), *(form(values[at]) if at in values else "" for values in known)] for at, _ in samples(longest.points, TABLE_ROWS)]


def _place_form(curves: Sequence[Curve]) -> Form:
    if all(at.is_integer() for curve in curves for at, _ in curve.points):
        return lambda value: f"{value:,.0f}" if float(value).is_integer() else f"{value:,.6g}"
    return lambda value: f"{value:.3g}"


def _count(curves: int) -> str:
    return "One curve" if curves == 1 else f"{curves} curves"
