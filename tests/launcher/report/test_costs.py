"""Quality against cost: exported models are points and rows of their own, with a score only where it was measured."""

from pathlib import Path

from report_results import write_results

from launcher.report.costs import cost_charts_of, cost_rows
from launcher.report.results import Exported, Results
from launcher.report.retention import read_all, summarise
from launcher.report.tables import markdown


def with_exports(results: Results, value: float | None, latency_ms: float | None) -> Results:
    """The results with an INT8 file of the first student of each task."""
    tasks = []
    for task in results.tasks:
        student = task.students[0]
        file = Exported(form="INT8", bytes=5_000_000, value=value, latency_ms=latency_ms)
        models = [model.model_copy(update={"exported": file}) if model.name == student.name else model for model in task.models]
        tasks.append(task.model_copy(update={"models": models}))
    return results.model_copy(update={"tasks": tasks})


def test_an_exported_file_is_a_point_with_its_own_size_score_and_latency(tmp_path: Path):
    plain = write_results(tmp_path)
    name = f"{plain.tasks[0].students[0].name}, INT8"
    results = with_exports(plain, 0.5, 1.25)
    series = {model.name: number for number, model in enumerate(results.tasks[0].models)}
    drawn, missing, own = cost_charts_of(results, series)
    assert missing == []
    assert [title for title, _ in drawn] == [
        "Quality against parameters",
        "Quality against size on disk, MB",
        "Quality against latency, ms per example",
    ]
    parameters, bytes_, latency = (chart for _, chart in drawn)
    assert name not in parameters, "it has the same parameters"
    assert f"{name}: 5, 50.0" in bytes_
    assert f"{name}: 1.25, 50.0" in latency
    assert own[name] == len(series)
    row = next(row for row in cost_rows(results) if row["name"] == name)
    assert (row["bytes"], row["latency"], row["score"]) == ("5 MB", "1.25", "50.0")
    predictions = read_all(results, tmp_path)
    assert f"| {name} |" in markdown(results, summarise(results, predictions))


def test_what_was_not_measured_is_no_point_and_said(tmp_path: Path):
    plain = write_results(tmp_path)
    series = {model.name: number for number, model in enumerate(plain.tasks[0].models)}
    before = [title for title, _ in cost_charts_of(plain, series)[0]]
    assert "Quality against size on disk, MB" not in before, "without exports the page is as it was"
    results = with_exports(plain, None, None)
    name = f"{plain.tasks[0].students[0].name}, INT8"
    assert all(name not in chart for _, chart in cost_charts_of(results, series)[0])
    row = next(row for row in cost_rows(results) if row["name"] == name)
    assert (row["latency"], row["score"]) == ("not measured", "not measured")
