"""Charts show the figures: lengths of bars, order of points, thinned curves, and the same figures as text."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from report_results import write_results

from launcher.report import charts
from launcher.report.results import CurvePoint
from launcher.report.retention import read_all, summarise


def parse(markup: str) -> ElementTree.Element:
    return ElementTree.fromstring(markup)


def test_bars_are_as_long_as_their_values_and_have_intervals(tmp_path: Path):
    results = write_results(tmp_path, ("SST-2",), predictions=False)
    (summary,) = summarise(results, read_all(results, tmp_path))
    root = parse(charts.bars("b", summary, {row.model: number for number, row in enumerate(summary.rows)}))
    widths = [float(bar.get("width", "")) for bar in root.iter("rect")]
    assert [width / widths[0] for width in widths] == pytest.approx([row.value / summary.rows[0].value for row in summary.rows], abs=2e-3)
    assert len([line for line in root.iter("line") if line.get("class") == "interval"]) == 3 * len(widths)
    about = root.find("desc")
    assert about is not None
    assert f"{summary.rows[1].value * 100:.1f}" in (about.text or "")


def test_a_negative_score_is_drawn_left_of_zero(tmp_path: Path):
    results = write_results(tmp_path, ("CoLA",), predictions=False).model_dump()
    results["tasks"][0]["models"][1]["runs"][0].update(value=-0.9, low=-1.0, high=-0.8)
    results["tasks"][0]["models"][1]["runs"] = results["tasks"][0]["models"][1]["runs"][:1]
    parsed = write_results(tmp_path, ("CoLA",), predictions=False).__class__.model_validate(results)
    (summary,) = summarise(parsed, read_all(parsed, tmp_path))
    bars = list(parse(charts.bars("b", summary, {row.model: number for number, row in enumerate(summary.rows)})).iter("rect"))
    assert float(bars[1].get("x", "")) + float(bars[1].get("width", "")) == pytest.approx(float(bars[0].get("x", "")), abs=0.2)


def test_quality_against_cost_has_a_point_per_model():
    places = [charts.Place("small", 1e6, 0.8), charts.Place("big", 1e8, 0.9)]
    root = parse(charts.against_cost("c", places, {"small": 0, "big": 0}, "parameters", lambda value: f"{value:g}", "score"))
    marks = [(float(mark.get("cx", "")), float(mark.get("cy", ""))) for mark in root.iter("circle")]
    assert marks[0][0] < marks[1][0]
    assert marks[0][1] > marks[1][1], "a better score lies higher"


def test_long_curves_are_thinned_to_their_ends(tmp_path: Path):
    results = write_results(tmp_path, ("SST-2",), predictions=False)
    task = results.tasks[0]
    long = [CurvePoint(update=n, value=n / 5000) for n in range(4001)]
    run = task.models[0].runs[0].model_copy(update={"curve": long})
    short = task.model_copy(update={"models": [task.models[0].model_copy(update={"runs": [run]})]})
    markup = charts.curves("c", short, {task.models[0].name: 0})
    assert markup is not None
    (line,) = parse(markup).iter("polyline")
    points = (line.get("points") or "").split()
    assert 150 < len(points) <= charts.MOST_CURVE_POINTS + 1
    assert float(points[-1].split(",")[0]) > float(points[0].split(",")[0])
    bare = short.model_copy(update={"models": [task.models[0].model_copy(update={"runs": [run.model_copy(update={"curve": []})]})]})
    assert charts.curves("c", bare, {task.models[0].name: 0}) is None
