"""Results are checked when they are read: one teacher, distinct names, a metric that exists, files with one line per example."""

import json
import re
from pathlib import Path

import pytest

from launcher.errors import LaunchError
from launcher.report.predictions import form_problem
from launcher.report.results import Prediction, Results, read_predictions, read_results

RUN = {"seed": 0, "value": 0.9, "low": 0.88, "high": 0.92, "standard_error": 0.01}
TEACHER = {"name": "big", "role": "teacher", "runs": [RUN]}
STUDENT = {"name": "small", "role": "task_distilled", "runs": [RUN]}
TASK = {
    "name": "t",
    "title": "T",
    "kind": "classification",
    "metric": "accuracy",
    "constant": 0.5,
    "examples": 2,
    "models": [TEACHER, STUDENT],
}


def test_results_are_read_as_written(tmp_path: Path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"title": "R", "tasks": [TASK]}))
    results = read_results(path)
    assert results.tasks[0].teacher.name == "big"
    assert [model.name for model in results.tasks[0].students] == ["small"]
    assert results.tasks[0].metric_title == "accuracy"
    path.write_text(results.model_dump_json())
    assert read_results(path) == results


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"models": [STUDENT]}, "expected one model with the role teacher, got 0"),
        ({"models": [TEACHER, TEACHER]}, "expected each model once, got big twice"),
        ({"models": [TEACHER, {**STUDENT, "runs": [RUN, RUN]}]}, "expected each seed once"),
        (
            {"models": [TEACHER, {**STUDENT, "without_teacher": "other"}]},
            "expected without_teacher to be a fine_tuned or pretraining_distilled model of the task, got other",
        ),
        ({"models": [TEACHER, {**STUDENT, "runs": [{**RUN, "low": 0.95}]}]}, "expected low <= high"),
        ({"metric": "pearson"}, "metric pearson: expected one of accuracy"),
        ({"colour": "red"}, "colour: Extra inputs"),
    ],
)
def test_mistakes_are_one_line_that_names_the_file(tmp_path: Path, change: dict, message: str):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"title": "R", "tasks": [{**TASK, **change}]}))
    with pytest.raises(LaunchError, match=message) as caught:
        read_results(path)
    assert str(caught.value).startswith(f"{path}: expected results of a report, got ")
    assert "\n" not in str(caught.value)


def test_the_examples_of_the_documentation_are_valid():
    page = (Path(__file__).parents[3] / "docs" / "report.md").read_text(encoding="utf-8")
    results, prediction = re.findall(r"```json\n(.*?)```", page, re.S)
    assert Results.model_validate_json(results).tasks[0].teacher.runs[0].curve
    assert form_problem("classification", Prediction.model_validate_json(prediction)) is None


def test_two_tasks_with_one_title_are_refused(tmp_path: Path):
    path = tmp_path / "results.json"
    path.write_text(json.dumps({"title": "R", "tasks": [TASK, {**TASK, "name": "other"}]}))
    with pytest.raises(LaunchError, match="expected each name and title once, got T, T; rename one"):
        read_results(path)


def test_a_missing_file_and_a_wrong_number_of_predictions_are_named(tmp_path: Path):
    with pytest.raises(LaunchError, match="expected a file with results, got No such file"):
        read_results(tmp_path / "none.json")
    path = tmp_path / "p.jsonl"
    path.write_text('{"label": 1, "predicted": 0}\n\n')
    assert len(read_predictions(path, 1)) == 1
    with pytest.raises(LaunchError, match="expected 2 predictions, got 1"):
        read_predictions(path, 2)
    path.write_text('{"label": 1, "predicted": 0}\n{"label": 1}\n')
    with pytest.raises(LaunchError, match="expected a prediction in line 2, got predicted: Field required"):
        read_predictions(path, 2)
