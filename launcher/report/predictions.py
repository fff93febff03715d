"""Predictions of several models on the same examples: metrics of resamples, confusion, and the largest disagreements."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kd.tasks.metrics.catalogue import metric
from kd.tasks.metrics.question_answering import answer_scores
from kd.tasks.metrics.resampling import Weighted
from kd.tasks.metrics.statistics import mean_of_runs
from launcher.errors import LaunchError
from launcher.report.results import Kind, Model, Prediction, Task, read_predictions

MOST_CLASSES = 12
"""A confusion matrix of more classes is not drawn."""


@dataclass(frozen=True)
class Disagreement:
    """One example on which teacher and student differ. distance: how far, 0 .. 1 for classes."""

    row: int
    text: str
    text_pair: str | None
    label: str
    teacher: str
    student: str
    distance: float


@dataclass(frozen=True)
class RunPredictions:
    """The predictions of one run, one entry per example. scores: the probability of each class, where the file has them."""

    predicted: list[Any]
    scores: list[list[float] | None]


class TaskPredictions:
    """The predictions of one task's models, by model name: one entry per run that has a file. Texts are held once."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task = task
        self.examples: list[Prediction] = []
        """The rows of the first file, for their texts and labels."""
        self.runs: dict[str, list[RunPredictions]] = {}
        for model in task.models:
            files = [folder / run.predictions for run in model.runs if run.predictions is not None]
            self.runs[model.name] = [self._read(file) for file in files]

    def _read(self, path: Path) -> RunPredictions:
        rows = read_predictions(path, self.task.examples)
        self.examples = self.examples or rows
        for number, (first, row) in enumerate(zip(self.examples, rows, strict=True)):
            if (first.label, first.text, first.text_pair) != (row.label, row.text, row.text_pair):
                raise LaunchError(
                    f"{path}: expected the examples of the task's other files in the same order, got another one in row {number}; "
                    "score all models on one split"
                )
            problem = form_problem(self.task.kind, row)
            if problem is not None:
                raise LaunchError(f"{path}: expected {problem} in row {number}; score the model again")
        return RunPredictions([row.predicted for row in rows], [row.scores for row in rows])

    def weighted(self, model: Model) -> Weighted | None:
        """The metric of resamples, the mean over runs. None unless every run has predictions."""
        runs = self.runs[model.name]
        if len(runs) != len(model.runs):
            return None
        row = metric(self.task.kind, self.task.metric)
        return mean_of_runs([row.weighted(self._array(run.predicted), self._labels()) for run in runs])

    def confusion(self, model: Model) -> NDArray[np.int64] | None:
        """Counts [label, predicted] of the first run with predictions. None for other kinds and for many classes."""
        if self.task.kind != "classification" or not self.runs[model.name]:
            return None
        predicted, labels = self._array(self.runs[model.name][0].predicted), self._labels()
        classes = max(int(predicted.max()), int(labels.max()), len(self.task.labels) - 1) + 1
        if classes > MOST_CLASSES:
            return None
        counts: NDArray[np.int64] = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(counts, (labels, predicted), 1)
        return counts

    def disagreements(self, student: Model, count: int) -> list[Disagreement]:
        """The examples on which the first runs of teacher and student differ most."""
        teachers, students = self.runs[self.task.teacher.name], self.runs[student.name]
        if not teachers or not students:
            return []
        theirs, ours = teachers[0], students[0]
        columns = zip(theirs.predicted, ours.predicted, theirs.scores, ours.scores, strict=True)
        distances = np.array([_distance(self.task.kind, *values) for values in columns])
        order = [int(row) for row in np.argsort(-distances, kind="stable")[:count] if distances[row] > 0]
        return [
            Disagreement(
                row=row,
                text=self.examples[row].text,
                text_pair=self.examples[row].text_pair,
                label=self._text(self.examples[row].label),
                teacher=_with_share(self._text(theirs.predicted[row]), theirs.scores[row]),
                student=_with_share(self._text(ours.predicted[row]), ours.scores[row]),
                distance=float(distances[row]),
            )
            for row in order
        ]

    def _labels(self) -> Any:
        return self._array([row.label for row in self.examples])

    def _array(self, values: list[Any]) -> Any:
        """Predictions or labels in the form of the metrics of the task's kind."""
        dtype = {"classification": np.int64, "regression": np.float64, "multi_label": np.int64}.get(self.task.kind)
        return values if dtype is None else np.array(values, dtype=dtype)

    def _text(self, value: Any) -> str:
        """A label or a prediction for people."""
        names = self.task.labels
        if self.task.kind == "classification":
            return names[value] if isinstance(value, int) and 0 <= value < len(names) else str(value)
        if self.task.kind == "multi_label":
            return ", ".join(names[i] if i < len(names) else str(i) for i, on in enumerate(value) if on) or "none"
        if self.task.kind == "question_answering":
            answers = [value] if isinstance(value, str) else list(value)
            return " / ".join(dict.fromkeys(answer for answer in answers if answer)) or "no answer"
        if self.task.kind == "tagging":
            return " ".join(value)
        return f"{value:.2f}"


def form_problem(kind: Kind, row: Prediction) -> str | None:
    """The first way in which a prediction has not the form of its kind, as `expected …` continues; None where it has."""
    label, predicted = row.label, row.predicted
    if kind == "classification":
        if not all(type(value) is int and value >= 0 for value in (label, predicted)):
            return f"class numbers, got label {label!r:.40} and prediction {predicted!r:.40}"
        if row.scores is not None and len(row.scores) <= max(label, predicted):
            return f"a probability for each class, got {len(row.scores)} for class {max(label, predicted)}"
    elif kind == "regression":
        if not all(type(value) in (int, float) and math.isfinite(value) for value in (label, predicted)):
            return f"finite numbers, got label {label!r:.40} and prediction {predicted!r:.40}"
    elif kind == "question_answering":
        if not (isinstance(predicted, str) and isinstance(label, list) and all(isinstance(answer, str) for answer in label)):
            return f"a text and a list of answers, got {predicted!r:.40} and {label!r:.40}"
    elif not (isinstance(label, list) and isinstance(predicted, list) and len(label) == len(predicted)):
        return f"lists of one length, got label {label!r:.40} and prediction {predicted!r:.40}"
    elif not all(isinstance(value, str) if kind == "tagging" else value in (0, 1) for value in (*label, *predicted)):
        return f"{'tags' if kind == 'tagging' else 'zeros and ones'}, got label {label!r:.40} and prediction {predicted!r:.40}"
    return None


def _distance(kind: Kind, teacher: Any, student: Any, teacher_scores: list[float] | None, student_scores: list[float] | None) -> float:
    """Classes: total variation of the probabilities, or whether the classes differ. Others: the size of the difference."""
    if (
        kind == "classification"
        and teacher_scores is not None
        and student_scores is not None
        and len(teacher_scores) == len(student_scores)
    ):
        return float(np.abs(np.subtract(teacher_scores, student_scores)).sum() / 2)
    if kind == "regression":
        return abs(float(teacher) - float(student))
    if kind == "question_answering":
        return 1 - float(answer_scores([student], [[teacher] if teacher else []])[0, 1])
    if kind in ("tagging", "multi_label"):
        return float(np.mean([one != other for one, other in zip(teacher, student, strict=True)] or [0]))
    return float(teacher != student)


def _with_share(text: str, scores: list[float] | None) -> str:
    return text if scores is None else f"{text} ({max(scores) * 100:.0f} %)"
