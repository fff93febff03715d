"""Scores of a task model on a split: logits of every row, predictions, official metrics with intervals."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from data_shards.tasks.encoding.encoded import EncodedTask
from data_shards.tasks.examples import Examples
from kd.tasks.metrics.catalogue import Metric
from kd.tasks.metrics.spans import best_span
from kd.tasks.model import TaskEncoder
from launcher.errors import LaunchError
from launcher.tasks.outputs import Outputs, flat_outputs


@dataclass(frozen=True)
class TaskScores:
    """The scores of one evaluation. values: by metric. objective: what `evaluate.keep` and patience go by; lower is better."""

    values: dict[str, float]
    loss: float
    objective: float
    rows: int
    details: dict[str, Any]
    outputs: Outputs
    final: "TaskScores | None" = None
    """The scores on dev, with intervals, of an evaluation of everything. Itself, where dev is what the evaluation was on."""

    @property
    def line(self) -> dict[str, float]:
        """The numbers of a held-out line."""
        return {"heldout_loss": self.loss, **{f"heldout_{key}": value for key, value in self.values.items()}}

    @property
    def row(self) -> dict[str, Any]:
        """Everything, for report.json."""
        return {**self.values, "loss": self.loss, "rows": self.rows, **self.details}


def outputs_of(encoder: TaskEncoder, task: EncodedTask, batch: int, before_batch: Callable[[], None] = lambda: None) -> Outputs:
    """A model's outputs on every row of a split. Collective. See flat_outputs."""
    return flat_outputs(encoder, task, batch, before_batch).by_row(task)


def predictions_of(outputs: Outputs, task: EncodedTask, examples: Examples) -> Any:
    """Predictions in the form that the metrics of the kind take, one for each example."""
    if task.kind == "classification":
        return np.stack(outputs.logits).argmax(-1)
    if task.kind == "regression":
        return np.stack(outputs.logits)[:, 0].astype(np.float64)
    if task.kind == "multi_label":
        return np.stack(outputs.logits) > 0
    if task.kind == "tagging":
        return _tags(outputs, task, examples)
    return _answers(outputs, task, examples)


def labels_of(task: EncodedTask, examples: Examples) -> Any:
    """The labels in the same form."""
    if task.kind == "tagging":
        return [list(tags) for tags in examples.labels or []]
    if task.kind == "question_answering":
        return [[answer.text for answer in answers] for answers in examples.labels or []]
    assert task.labels is not None
    return (
        task.labels.astype(np.float64)
        if task.kind == "regression"
        else task.labels.astype(bool if task.kind == "multi_label" else np.int64)
    )


def _tags(outputs: Outputs, task: EncodedTask, examples: Examples) -> list[list[str]]:
    """A tag for each word; O for words that were cut or have no token."""
    assert task.words is not None
    assert examples.words is not None
    made = []
    for row, words in enumerate(examples.words):
        tags = ["O"] * len(words)
        numbers = task.words[task.offsets[row] : task.offsets[row + 1]]
        best = outputs.logits[row].argmax(-1) if len(outputs.logits[row]) else []
        for number, label in zip(numbers[numbers >= 0].tolist(), best, strict=True):
            tags[number] = task.label_names[int(label)]
        made.append(tags)
    return made


def _answers(outputs: Outputs, task: EncodedTask, examples: Examples) -> list[str]:
    """The text of the best span over all windows of an example; "" where no answer scores higher and the data has such questions."""
    assert task.characters is not None
    assert examples.pairs is not None
    may_be_null = any(not answers for answers in examples.labels or [])
    rows_of: dict[int, list[int]] = {}
    for row, number in enumerate(task.examples.tolist()):
        rows_of.setdefault(number, []).append(row)
    texts = []
    for number, context in enumerate(examples.pairs):
        rows = rows_of[number]
        width = max(int(task.lengths[row]) for row in rows)
        logits, spans = np.full((2, len(rows), width), -1e4), np.full((len(rows), width, 2), -1)
        for place, row in enumerate(rows):
            length = int(task.lengths[row])
            logits[:, place, :length] = outputs.logits[row]
            spans[place, :length] = task.characters[task.offsets[row] : task.offsets[row + 1]]
        best = best_span(logits[0], logits[1], spans[..., 0] >= 0, null=may_be_null)
        if best.window < 0 or (may_be_null and not best.answers()):
            texts.append("")
        else:
            texts.append(context[spans[best.window, best.start, 0] : spans[best.window, best.end, 1]])
    return texts


class TaskScorer:
    """Scores models on one split by the task's metrics."""

    def __init__(self, task: EncodedTask, examples: Examples, metrics: Sequence[Metric], deciding: str, train_labels: Any = None) -> None:
        """deciding: the key of the metric that decides. train_labels: they say which constant prediction is the best one."""
        self.task, self.examples, self.metrics = task, examples, list(metrics)
        self.deciding = next(metric for metric in self.metrics if metric.key == deciding)
        self.labels = labels_of(task, examples)
        self.constant = {metric.key: metric.constant(self.labels, train_labels) for metric in self.metrics}

    def scores(self, outputs: Outputs, resamples: int | None = None) -> TaskScores:
        """Every metric; with intervals and the constant predictor's where `resamples` is given."""
        predictions = predictions_of(outputs, self.task, self.examples)
        values = {metric.key: metric.value(predictions, self.labels) for metric in self.metrics}
        value = values[self.deciding.key]
        details: dict[str, Any] = {"constant": self.constant}
        if resamples is not None:
            intervals = {metric.key: metric.interval(predictions, self.labels, resamples) for metric in self.metrics}
            details["intervals"] = {key: [one.low, one.high] for key, one in intervals.items()}
            details["standard_errors"] = {key: one.standard_error for key, one in intervals.items()}
        if (same := _constant(predictions, self.task)) is not None:
            details["constant_prediction"] = same
        objective = -value if self.deciding.better == "higher" else value
        return TaskScores(values, outputs.loss, objective, len(self.examples), details, outputs)


def _constant(predictions: Any, task: EncodedTask) -> Any:
    """The one prediction that a model gives for every example: a name, a list of names or a number; None if it gives several."""
    if task.kind in ("tagging", "question_answering"):
        flat = [tag for tags in predictions for tag in tags] if task.kind == "tagging" else list(predictions)
        return flat[0] if len(flat) > 1 and len(set(flat)) == 1 else None
    values = np.asarray(predictions)
    if len(values) < 2 or np.ptp(values.astype(float), axis=0).max() != 0:
        return None
    if task.kind == "classification":
        return task.label_names[int(values[0])]
    return (
        [name for name, there in zip(task.label_names, values[0], strict=True) if there] if task.kind == "multi_label" else float(values[0])
    )


def check_finite(where: str, outputs: Outputs) -> None:
    """Raise LaunchError for outputs that are not numbers: they would count as predictions of the first label."""
    broken = sum(not np.isfinite(logits).all() for logits in outputs.logits)
    if broken:
        raise LaunchError(
            f"{where}: expected finite outputs, got NaN or infinity in {broken:,} of {len(outputs.logits):,} rows; use another"
        )
