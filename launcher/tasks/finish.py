"""The end of a run on a task: the student as a Hugging Face folder, report.json, and the student's predictions on dev."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from transformers import PreTrainedTokenizerBase

from kd.export.hugging_face import save_student
from kd.export.model_card import public_name
from kd.tasks.metrics.question_answering import answer_scores
from kd.tasks.model import TaskEncoder
from launcher.config.task_config import TaskRunConfig
from launcher.run_folder.folder import SAMPLES
from launcher.tasks.card import task_card
from launcher.tasks.outputs import Outputs
from launcher.tasks.remarks import remarks_on
from launcher.tasks.scores import TaskScorer, TaskScores, predictions_of
from launcher.tasks.source import TaskSource, base_model
from launcher.training.finish import digests_of, report_of
from launcher.training.parts import Finished
from stillhouse.files import write_atomically

PREDICTIONS = "predictions.jsonl"
WRONG, RIGHT, TEXT_LIMIT = 8, 4, 1000
"""Sample predictions of each kind, and characters of their texts."""


def write_task_student(
    source: TaskSource, scorer: TaskScorer, chosen_on_dev: bool, record: dict[str, Any], finished: Finished
) -> list[str]:
    """Write the student, its predictions on dev, and report.json. record: of the student's origin, with the teachers' scores.

    Returns remarks on the scores.
    """
    config, folder, student = finished.config, finished.folder, finished.student
    assert isinstance(config, TaskRunConfig)
    assert isinstance(student, TaskEncoder)
    assert isinstance(finished.scores, TaskScores)
    scores = finished.scores.final or finished.scores
    teachers = [member.model for member in config.members.values()]
    report = report_of(finished) | {
        "task": {"kind": config.data.kind, "preset": config.data.preset, "labels": source.labels, "metric": scorer.deciding.key},
        "rows": {name: len(examples) for name, examples in source.splits.items()},
        "data": source.data.report.lines(),
        "dev": scores.row,
        "teachers": record.get("teachers", []),
        "chosen_on": _chosen_on(config, chosen_on_dev),
    }
    report["remarks"] = remarks_on(scores, scorer.deciding.key, report["teachers"])
    tokenizer = folder.folder / ".tokenizer"
    try:
        _save_tokenizer(source.tokenizer(base_model(config)), tokenizer)
        save_student(
            student, folder.student, tokenizer_folder=tokenizer, card=task_card(student, config, report, [public_name(t) for t in teachers])
        )
    finally:
        shutil.rmtree(tokenizer, ignore_errors=True)
    report["files"] = digests_of(folder.student)
    write_atomically(folder.folder / PREDICTIONS, "".join(f"{line}\n" for line in prediction_lines(scores.outputs, scorer)))
    write_atomically(folder.folder / SAMPLES, "".join(f"{line}\n" for line in sample_lines(scores.outputs, scorer)))
    write_atomically(folder.report, json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return list(report["remarks"])


def prediction_lines(outputs: Outputs, scorer: TaskScorer) -> list[str]:
    """One JSON line for each example: its id, its label, the prediction, and the logits where an example has one row."""
    predictions = predictions_of(outputs, scorer.task, scorer.examples)
    names, lines = scorer.task.label_names, []
    for number, identity in enumerate(scorer.examples.ids):
        predicted, label = predictions[number], scorer.labels[number]
        if scorer.task.kind == "classification":
            predicted, label = names[int(predicted)], names[int(label)]
        elif scorer.task.kind == "multi_label":
            predicted, label = ([name for name, there in zip(names, row, strict=True) if there] for row in (predicted, label))
        line: dict[str, Any] = {"id": identity, "label": _plain(label), "prediction": _plain(predicted)}
        if scorer.task.kind in ("classification", "multi_label", "regression"):
            line["logits"] = [round(float(value), 5) for value in outputs.logits[number]]
        lines.append(json.dumps(line, ensure_ascii=False))
    return lines


def sample_lines(outputs: Outputs, scorer: TaskScorer) -> list[str]:
    """A few predictions as JSON lines with their texts: the first wrong ones, then the first right ones. Of numbers, the largest errors."""
    predictions, examples, kind = predictions_of(outputs, scorer.task, scorer.examples), scorer.examples, scorer.task.kind
    errors = [_error(kind, predicted, label) for predicted, label in zip(predictions, scorer.labels, strict=True)]
    wrong = [number for number, error in enumerate(errors) if error > 0]
    right = [number for number, error in enumerate(errors) if error == 0]
    if kind == "regression":
        order = sorted(range(len(errors)), key=lambda number: -errors[number])
        wrong, right = order[:WRONG], order[max(WRONG, len(order) - RIGHT) :]
    lines = [json.loads(line) for line in prediction_lines(outputs, scorer)]
    made = []
    for number in [*wrong[:WRONG], *right[:RIGHT]]:
        texts = {"text": examples.texts[number][:TEXT_LIMIT]}
        if examples.pairs is not None:
            texts["text_pair"] = examples.pairs[number][:TEXT_LIMIT]
        made.append(json.dumps({"id": lines[number]["id"], **texts, **lines[number]}, ensure_ascii=False))
    return made


def _error(kind: str, predicted: Any, label: Any) -> float:
    """0 for a right prediction. Of numbers, the distance."""
    if kind == "regression":
        return abs(float(predicted) - float(label))
    if kind == "question_answering":
        return 1.0 - float(answer_scores([predicted], [label])[0, 0])
    return float(not np.array_equal(predicted, label))


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _chosen_on(config: TaskRunConfig, chosen_on_dev: bool) -> str:
    """The data on which the exported weights were chosen: scores on it are too good."""
    if config.evaluate.keep == "last" and config.evaluate.patience is None:
        return "nothing: the weights are those of the last update"
    if chosen_on_dev:
        return "dev: its scores are flattered by the choice; set evaluate.choose_on to choose on a part of train"
    return f"{config.evaluate.choose_on:g} of train"


def _save_tokenizer(tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write the tokenizer without a truncation or padding of its own, which would cut a user's text."""
    backend: Any = tokenizer.backend_tokenizer
    truncation, padding = backend.truncation, backend.padding
    backend.no_truncation()
    backend.no_padding()
    try:
        tokenizer.save_pretrained(folder)
    finally:
        if truncation is not None:
            backend.enable_truncation(**truncation)
        if padding is not None:
            backend.enable_padding(**padding)
