"""Predictions of several models on the same examples: metrics of resamples, confusion, and the largest disagreements."""

from collections.abc import Sequence
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


class TaskPredictions:
    """The predictions of one task's models, by model name: one list per run that has a file."""

    def __init__(self, task: Task, folder: Path) -> None:
        self.task = task
        self.runs: dict[str, list[list[Prediction]]] = {}
        for model in task.models:
            files = [folder / run.predictions for run in model.runs if run.predictions is not None]
            self.runs[model.name] = [read_predictions(file, task.examples) for file in files]
        every = [(name, run) for name, runs in self.runs.items() for run in runs]
        for name, run in every[1:]:
            for row, (one, other) in enumerate(zip(every[0][1], run, strict=True)):
                if (one.label, one.text, one.text_pair) != (other.label, other.text, other.text_pair):
                    raise LaunchError(
                        f"task {task.name}: expected the same examples in the same order from {every[0][0]} and {name}, "
                        f"got another one in row {row}; score both on one split"
                    )

    def weighted(self, model: Model) -> Weighted | None:
        """The metric of resamples, the mean over runs. None unless every run has predictions."""
        runs = self.runs[model.name]
        if len(runs) != len(model.runs):
            return None
        row = metric(self.task.kind, self.task.metric)
        return mean_of_runs([row.weighted(*_arrays(self.task.kind, run)) for run in runs])

    def confusion(self, model: Model) -> NDArray[np.int64] | None:
        """Counts [label, predicted] of the first run with predictions. None for other kinds and for many classes."""
        if self.task.kind != "classification" or not self.runs[model.name]:
            return None
        predicted, labels = _arrays(self.task.kind, self.runs[model.name][0])
        classes = max(int(predicted.max()), int(labels.max()), len(self.task.labels) - 1) + 1
        if classes > MOST_CLASSES or min(predicted.min(), labels.min()) < 0:
            return None
        counts: NDArray[np.int64] = np.zeros((classes, classes), dtype=np.int64)
        np.add.at(counts, (labels, predicted), 1)
        return counts

    def disagreements(self, student: Model, count: int) -> list[Disagreement]:
        """The examples on which the first runs of teacher and student differ most."""
        teachers, students = self.runs[self.task.teacher.name], self.runs[student.name]
        if not teachers or not students:
            return []
        pairs = list(zip(teachers[0], students[0], strict=True))
        distances = np.array([_distance(self.task.kind, *pair) for pair in pairs])
        order = [int(row) for row in np.argsort(-distances, kind="stable")[:count] if distances[row] > 0]
        return [self._disagreement(row, *pairs[row], float(distances[row])) for row in order]

    def _disagreement(self, row: int, teacher: Prediction, student: Prediction, distance: float) -> Disagreement:
        label, ours, theirs = (self._text(value) for value in (teacher.label, student.predicted, teacher.predicted))
        return Disagreement(row, teacher.text, teacher.text_pair, label, _with_share(theirs, teacher), _with_share(ours, student), distance)

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


def _arrays(kind: Kind, run: Sequence[Prediction]) -> tuple[Any, Any]:
    """Predictions and labels in the form of the metrics of that kind."""
    predicted, labels = [row.predicted for row in run], [row.label for row in run]
    if kind in ("tagging", "question_answering"):
        return predicted, labels
    dtype = {"classification": np.int64, "regression": np.float64, "multi_label": np.int64}[kind]
    return np.array(predicted, dtype=dtype), np.array(labels, dtype=dtype)


def _distance(kind: Kind, teacher: Prediction, student: Prediction) -> float:
    """Classes: total variation of the probabilities, or whether the classes differ. Others: the size of the difference."""
    if kind == "classification" and teacher.scores is not None and student.scores is not None:
        return float(np.abs(np.subtract(teacher.scores, student.scores)).sum() / 2)
    if kind == "regression":
        return abs(float(teacher.predicted) - float(student.predicted))
    if kind == "question_answering":
        return 1 - float(answer_scores([student.predicted], [[teacher.predicted] if teacher.predicted else []])[0, 1])
    if kind in ("tagging", "multi_label"):
        return float(np.mean([one != other for one, other in zip(teacher.predicted, student.predicted, strict=True)] or [0]))
    return float(teacher.predicted != student.predicted)


def _with_share(text: str, prediction: Prediction) -> str:
    return text if prediction.scores is None else f"{text} ({max(prediction.scores) * 100:.0f} %)"
