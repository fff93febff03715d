"""`stillhouse calibrate MODEL --task-config …`: a temperature, and thresholds of several labels, chosen on a task's development set."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from data_shards.tasks.labels import resolve_labels
from kd.tasks.metrics.calibration import HIGHEST, LOWEST, best_temperature, expected_calibration_error
from kd.tasks.metrics.multi_label import best_thresholds, f1_micro
from kd.tasks.model import TaskEncoder
from launcher.deployment.command import command_of
from launcher.deployment.conversion.quality import BATCH, RuntimeTask
from launcher.deployment.prediction.answers import softmax
from launcher.deployment.prediction.calibration import Calibration, write_calibration
from launcher.deployment.prediction.served import serve
from launcher.errors import LaunchError
from launcher.process.machine import processor
from launcher.process.standard_streams import say
from launcher.tasks.build import check_metric_packages, make_scorer
from launcher.tasks.data import task_config
from launcher.tasks.scores import Outputs, TaskScorer, check_finite, outputs_of
from launcher.tasks.source import TaskSource
from launcher.tasks.teachers import check_length

KINDS = ("classification", "multi_label", "tagging")
FEWEST = 40
"""Rows, or words of tagging, below which a temperature says nothing."""
Floats = NDArray[np.float64]


def run(arguments: argparse.Namespace) -> int:
    """Choose, say what was gained, and store it in the folder."""
    model = arguments.model
    if not Path(model).is_dir():
        raise LaunchError(f"{model}: expected a model folder, in which the calibration is stored, got none; correct the path")
    check_metric_packages()
    config = task_config(arguments.task_config, [f"student.init={model}", *arguments.settings])
    served = serve(model)
    if served.purpose not in KINDS:
        raise LaunchError(f"{model}: expected a model for {', '.join(KINDS)}, got {served.purpose}, whose scores have no temperature")
    if config.data.kind != served.purpose:
        raise LaunchError(f"--task-config: expected a task of kind {served.purpose}, got {config.data.kind}; choose the model's own task")
    check_length(model, served.max_tokens, config)
    source = TaskSource.read(config)
    order = resolve_labels(source.labels, dict(enumerate(served.labels)), {}, model)
    scorer = make_scorer(config, source, "dev", model)
    encoder = RuntimeTask(served.session, len(served.labels), order)
    outputs = outputs_of(cast(TaskEncoder, encoder), scorer.task, BATCH)
    check_finite(model, outputs)
    logits, gold = _pairs(outputs, scorer)
    if len(logits) < FEWEST:
        raise LaunchError(f"data.dev: expected at least {FEWEST} rows to choose a temperature on, got {len(logits)}; use a larger one")
    origin = {"machine": processor(), "command": command_of(arguments)}
    unit = "words" if served.purpose == "tagging" else "rows"
    data = f"{len(logits)} {unit} of dev"
    if served.purpose == "multi_label":
        calibration = _several(logits, gold.astype(bool), source.labels, data, origin)
    else:
        calibration = _single(logits, gold, data, origin)
    place = write_calibration(model, calibration)
    for line in calibration.lines:
        say(line)
    if calibration.temperature in (LOWEST, HIGHEST):
        reason = "no better than chance" if calibration.temperature == HIGHEST else "right everywhere"
        say(f"this temperature is the bound of the search: the logits are {reason} on these rows")
    say(f"stored in {place}; stillhouse predict {model} --calibrated uses it")
    return 0


def _pairs(outputs: Outputs, scorer: TaskScorer) -> tuple[Floats, NDArray[Any]]:
    """Logits and labels of the rows, or of the words of all rows, in the task's order of labels."""
    labels = scorer.task.labels
    assert labels is not None
    if scorer.task.kind == "tagging":
        assert scorer.task.words is not None
        first = scorer.task.words >= 0
        return np.concatenate(outputs.logits).astype(np.float64), labels[first]
    return np.stack(outputs.logits).astype(np.float64), labels


def _single(logits: Floats, gold: NDArray[Any], data: str, origin: dict[str, str]) -> Calibration:
    temperature = best_temperature(logits, gold)
    halves = _other_half(len(logits), lambda rows: best_temperature(logits[rows], gold[rows]))
    before, after, other = (expected_calibration_error(softmax(logits / t), gold) for t in (1.0, temperature, halves[:, None]))
    return Calibration(temperature, None, data, before, after, other, None, None, None, None, **origin)


def _several(logits: Floats, gold: NDArray[np.bool_], labels: list[str], data: str, origin: dict[str, str]) -> Calibration:
    """Each label of each row is a decision between two classes, with the logits 0 and its own. One temperature serves all."""

    def temperature_of(rows: NDArray[Any]) -> float:
        return best_temperature(_two(logits[rows]), gold[rows].reshape(-1).astype(np.int64))

    def shares(temperatures: Any) -> Floats:
        return 1 / (1 + np.exp(-logits / temperatures))

    def error(temperatures: Any) -> float:
        return expected_calibration_error(softmax(_two(logits / temperatures)), gold.reshape(-1).astype(np.int64))

    temperature = temperature_of(np.arange(len(logits)))
    thresholds = best_thresholds(shares(temperature), gold)
    halves = _other_half(len(logits), temperature_of)[:, None]
    by_half = _other_half(len(logits), lambda rows: best_thresholds(shares(halves)[rows], gold[rows]))
    named = {name: float(value) for name, value in zip(labels, thresholds, strict=True)}
    scores = [f1_micro(predicted, gold) for predicted in (logits > 0, shares(temperature) >= thresholds, shares(halves) >= by_half)]
    errors = [error(temperatures) for temperatures in (1.0, temperature, halves)]
    return Calibration(temperature, named, data, errors[0], errors[1], errors[2], "micro F1", scores[0], scores[1], scores[2], **origin)


def _two(logits: Floats) -> Floats:
    """[n, L] -> [n L, 2]: the logits of no and yes."""
    flat = logits.reshape(-1)
    return np.stack([np.zeros_like(flat), flat], axis=1)


def _other_half(count: int, choose: Callable[[NDArray[Any]], Any]) -> Floats:
    """For each row, the value that was chosen on the half of the rows without it. [count] or [count, L]."""
    order = np.random.default_rng(0).permutation(count)
    halves = order[: count // 2], order[count // 2 :]
    first, second = (np.asarray(choose(half), np.float64) for half in halves)
    made = np.empty((count, *first.shape))
    made[halves[0]], made[halves[1]] = second, first
    return made
