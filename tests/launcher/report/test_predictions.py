"""Confusion and disagreement of predictions, and examples that do not belong together."""

import json
from pathlib import Path

import pytest

from launcher.errors import LaunchError
from launcher.report.predictions import TaskPredictions
from launcher.report.results import Task


def made(folder: Path, teacher: list[dict], student: list[dict], kind: str = "classification", metric: str = "accuracy") -> TaskPredictions:
    models = []
    for name, role, rows in (("big", "teacher", teacher), ("small", "distilled", student)):
        (folder / f"{name}.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
        run = {"seed": 0, "value": 0.5, "low": 0.4, "high": 0.6, "standard_error": 0.1, "predictions": f"{name}.jsonl"}
        models.append({"name": name, "role": role, "runs": [run]})
    task = {"name": "t", "title": "T", "kind": kind, "metric": metric, "constant": 0.0, "examples": len(teacher), "models": models}
    return TaskPredictions(Task.model_validate({**task, "labels": ["no", "yes"] if kind == "classification" else []}), folder)


def row(text: str, label: object, predicted: object, scores: list[float] | None = None) -> dict:
    return {"text": text, "label": label, "predicted": predicted, "scores": scores}


def test_confusion_counts_labels_by_predictions(tmp_path: Path):
    predictions = made(tmp_path, [row("a", 0, 0), row("b", 1, 0), row("c", 1, 1)], [row("a", 0, 1), row("b", 1, 1), row("c", 1, 1)])
    counts = predictions.confusion(predictions.task.teacher)
    assert counts is not None
    assert counts.tolist() == [[1, 0], [1, 1]]


def test_disagreements_come_by_the_distance_of_probabilities(tmp_path: Path):
    teacher = [row("a", 0, 0, [0.6, 0.4]), row("b", 1, 1, [0.1, 0.9]), row("c", 1, 1, [0.2, 0.8])]
    student = [row("a", 0, 1, [0.4, 0.6]), row("b", 1, 0, [0.9, 0.1]), row("c", 1, 1, [0.2, 0.8])]
    predictions = made(tmp_path, teacher, student)
    found = predictions.disagreements(predictions.task.students[0], 5)
    assert [(one.row, one.text, one.distance) for one in found] == [(1, "b", pytest.approx(0.8)), (0, "a", pytest.approx(0.2))]
    assert (found[0].label, found[0].teacher, found[0].student) == ("yes", "yes (90 %)", "no (90 %)")


@pytest.mark.parametrize(
    ("kind", "metric", "label", "teacher", "student", "texts"),
    [
        ("regression", "pearson", 2.0, 2.5, 1.0, ("2.00", "2.50", "1.00")),
        ("tagging", "entity_f1", ["B-PER", "O"], ["B-PER", "O"], ["O", "O"], ("B-PER O", "B-PER O", "O O")),
        ("question_answering", "f1", ["Denver"], "Denver", "", ("Denver", "Denver", "no answer")),
        ("multi_label", "f1_micro", [1, 0], [1, 0], [0, 0], ("0", "0", "none")),
    ],
)
def test_every_kind_has_disagreements_in_words(tmp_path: Path, kind: str, metric: str, label, teacher, student, texts):
    predictions = made(tmp_path, [row("a", label, teacher)], [row("a", label, student)], kind, metric)
    (found,) = predictions.disagreements(predictions.task.students[0], 5)
    assert (found.label, found.teacher, found.student) == texts
    assert predictions.confusion(predictions.task.teacher) is None


def test_predictions_on_other_examples_are_refused(tmp_path: Path):
    with pytest.raises(
        LaunchError, match=r"small.jsonl: expected the examples of the task's other files in the same order, got another one in row 1"
    ):
        made(tmp_path, [row("a", 0, 0), row("b", 1, 1)], [row("a", 0, 0), row("c", 1, 1)])


@pytest.mark.parametrize(
    ("kind", "metric", "label", "predicted", "message"),
    [
        ("classification", "accuracy", "yes", 1, "class numbers, got label 'yes' and prediction 1"),
        ("classification", "accuracy", 1, 0.7, "class numbers, got label 1 and prediction 0.7"),
        ("classification", "accuracy", True, 1, "class numbers"),
        ("regression", "pearson", 1.0, float("nan"), "finite numbers, got label 1.0 and prediction nan"),
        ("question_answering", "f1", "Denver", "Denver", "a text and a list of answers, got 'Denver' and 'Denver'"),
        ("tagging", "entity_f1", ["O", "O"], ["O"], "lists of one length"),
        ("tagging", "entity_f1", ["O"], [1], "tags, got"),
        ("multi_label", "f1_micro", [1, 0], [0.4, 0], "zeros and ones"),
    ],
)
def test_predictions_of_another_form_are_one_line(tmp_path: Path, kind: str, metric: str, label, predicted, message: str):
    with pytest.raises(LaunchError, match=message) as caught:
        made(tmp_path, [row("a", label, predicted)], [row("a", label, predicted)], kind, metric)
    assert str(caught.value).endswith("in row 0; score the model again")


def test_too_few_probabilities_are_refused(tmp_path: Path):
    with pytest.raises(LaunchError, match="a probability for each class, got 1 for class 1"):
        made(tmp_path, [row("a", 1, 1, [0.9])], [row("a", 1, 1, [0.9])])


def test_half_an_emoji_does_not_stop_the_report(tmp_path: Path):
    predictions = made(
        tmp_path, [row("cut \ud83d", 0, 0), row("whole \U0001f999", 0, 0)], [row("cut \ud83d", 0, 1), row("whole \U0001f999", 0, 1)]
    )
    texts = [one.text for one in predictions.disagreements(predictions.task.students[0], 5)]
    assert texts == ["cut ?", "whole \U0001f999"]
