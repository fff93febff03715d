"""Scores against pretraining tokens: by hand, their mean, the lines that join students, and the chart with its place for 0."""

from pathlib import Path
from xml.etree import ElementTree

import pytest
from report_results import write_results

from launcher.report.pretraining import chart_of, pretraining_curve, tokens_text
from launcher.report.results import Results
from launcher.report.retention import read_all, summarise


def student(name: str, role: str, value: float, **more: object) -> dict:
    run = {"seed": 1, "value": value, "low": value - 0.02, "high": value + 0.02, "standard_error": 0.01}
    return {"name": name, "role": role, "parameters": 1000, "runs": [run], **more}


def task(name: str, *students: dict) -> dict:
    models = [student("big", "teacher", 0.9), *students]
    form = {"kind": "classification", "metric": "accuracy", "constant": 0.5, "examples": 100}
    return {"name": name, "title": name.upper(), "models": models, **form}


def curve_of(*tasks: dict):
    results = Results.model_validate({"title": "R", "tasks": list(tasks)})
    return pretraining_curve(summarise(results, read_all(results, Path())))


def test_students_are_listed_by_tokens_with_the_mean_over_the_tasks_that_all_have():
    layers = student("layers", "task_distilled", 0.7, pretraining_tokens=0)
    long, other = student("long", "distilled", 0.8, pretraining_tokens=5_000), student("teacher's layers", "task_distilled", 0.85)
    curve = curve_of(task("a", long, layers, other), task("b", layers | {"runs": [layers["runs"][0] | {"value": 0.6, "low": 0.5}]}, long))
    assert curve is not None
    assert [(one.model, one.tokens) for one in curve.students] == [("layers", 0), ("long", 5_000)], "unknown tokens have no place"
    first = curve.students[0]
    assert (first.scores["B"].low, first.scores["A"].value) == (0.5, 0.7)
    assert first.mean is not None
    assert first.mean.value == pytest.approx(0.65)
    assert first.mean.high - first.mean.value == pytest.approx(2 * 0.01 * 2**0.5 / 2), "two standard errors of a mean of two"
    assert curve.teacher_mean == pytest.approx(0.9)
    only_a = curve_of(task("a", long, layers), task("b", long))
    assert only_a is not None
    assert (only_a.tasks, only_a.common) == (["A", "B"], ["A"])


def test_there_is_no_curve_of_one_number_of_tokens():
    layers, more = student("layers", "task_distilled", 0.7, pretraining_tokens=0), student("more", "fine_tuned", 0.7, pretraining_tokens=0)
    assert curve_of(task("a", layers, more, student("other", "distilled", 0.8))) is None


def test_lines_join_students_that_differ_in_their_pretraining_only():
    base = {"pretraining_tokens": 0}
    curve = curve_of(
        task(
            "a",
            student("layers", "task_distilled", 0.7, **base, settings={"start": "base"}),
            student("layers alone", "fine_tuned", 0.7, **base),
            student("short", "distilled", 0.7, pretraining_tokens=10, settings={"start": "x"}),
            student("long", "distilled", 0.8, pretraining_tokens=99),
            student("long alone", "pretraining_distilled", 0.8, pretraining_tokens=99),
            student("longer training", "distilled", 0.8, pretraining_tokens=99, settings={"epochs": "5"}),
            student("wider", "distilled", 0.8, pretraining_tokens=99) | {"parameters": 2000},
            student("no teacher in pretraining", "task_distilled", 0.6, pretraining_tokens=99),
        )
    )
    assert curve is not None
    assert [line for line in curve.lines if len(line) > 1] == [
        ["layers", "short", "long"],
        ["layers alone", "long alone"],
        ["layers", "no teacher in pretraining"],
    ]


def test_the_chart_has_points_with_intervals_in_the_order_of_tokens_and_a_place_for_zero(tmp_path: Path):
    results = write_results(tmp_path, ("SST-2", "CoLA"), predictions=False, pretrained=True)
    curve = pretraining_curve(summarise(results, read_all(results, tmp_path)))
    assert curve is not None
    series = {one.model: 0 for one in curve.students}
    for name in (None, "SST-2"):
        root = ElementTree.fromstring(chart_of("c", curve, name, series))
        across = {circle[0].text or "": float(circle.get("cx", "")) for circle in root.iter("circle")}
        places = {one.model: next(x for text, x in across.items() if text.startswith(f"{one.model}:")) for one in curve.students}
        assert places["layers, distilled"] < places["400 k, distilled"] < places["4 M, distilled"]
        assert places["4 M, distilled"] != places["4 M, fine-tuned"], "points with the same tokens do not hide each other"
        assert len([line for line in root.iter("line") if (line.get("class") or "").startswith("whisker")]) == len(curve.students)
        assert len(list(root.iter("polyline"))) == 2
        labels = [element.text for element in root.iter("text")]
        assert {"0", "1 M"} <= set(labels)
        described = root.findtext("desc")
        assert described is not None
        assert "400 k, distilled, 369 k tokens: " in described
        assert "Teacher: " in described


def test_tokens_are_read_at_a_glance():
    assert [tokens_text(count) for count in (0, 900, 368_583, 4e6, 1.25e10)] == ["0", "900", "369 k", "4 M", "12.5 G"]
