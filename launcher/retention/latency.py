"""Latency of a proof's models: measured as `stillhouse latency` does, or read from a JSON file that it wrote.

Models are recognised by the sha256 of their weights, so a file that measured other weights gives no figure.
"""

import argparse
import json
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.comparison.jobs import Job
from launcher.deployment.timing import latency
from launcher.deployment.timing.figures import shape_text
from launcher.errors import LaunchError
from launcher.retention.exports import Export, Exports, read_exports, weights_of
from launcher.retention.finished import Finished, report_of
from launcher.retention.plan import Plan

FILE = "latency.json"
FORM = "torch fp32"
EXPORTED_FORM = "onnx int8"
MOST_TOKENS = 128
REPETITIONS = 50


@dataclass(frozen=True)
class Latencies:
    """milliseconds: of one example, by model; exported: of its ONNX file. text: where and how they were measured. command: measures them,
    where they were not."""

    milliseconds: dict[str, float] = field(default_factory=dict)
    exported: dict[str, float] = field(default_factory=dict)
    text: str = ""
    command: str = ""


def check_latency(plan: Plan) -> None:
    """Raise LaunchError if `latency` names a file that `stillhouse latency` did not write."""
    if isinstance(plan.settings.latency, str):
        _read(f"{plan.where}: latency", Path(plan.settings.latency).expanduser())


def latencies_of(plan: Plan, finished: dict[str, Finished]) -> Latencies:
    """The figures of the models that were measured."""
    command = f"stillhouse retention --config {shlex.quote(str(plan.root / 'retention.yaml'))} --folder {shlex.quote(str(plan.root))}"
    command += " latency=true"
    setting = plan.settings.latency
    path = plan.root / FILE if setting is True else Path(setting).expanduser() if isinstance(setting, str) else None
    if path is None or (setting is True and not path.is_file()):
        return Latencies(text="Latency was not measured.", command=command)
    content = _read(str(path), path)
    names = {_weights(model["files"]): model["letter"] for model in content["models"] if model["form"] == FORM}
    letters = {names[weights]: learner for learner, job in _jobs(finished) if (weights := _weights(report_of(job)["files"])) in names}
    rows = [row for row in content["rows"] if row["letter"] in letters]
    if not rows:
        text = f"Latency was not measured: {path.name} has none of these models in {FORM}."
        return Latencies(text=text, command=command)
    shapes = {(row["batch"], row["threads"], row["length"]) for row in rows}
    chosen = min(shapes, key=lambda shape: (shape[0], shape[1], -shape[2]))
    rows = [row for row in rows if (row["batch"], row["threads"], row["length"]) == chosen]
    milliseconds = {letters[row["letter"]]: row["p50_ms"] / row["batch"] for row in rows}
    files = {next(iter(model["files"].values())): model["letter"] for model in content["models"] if model["form"] == EXPORTED_FORM}
    own = {letter: name for name, one in _exports_by_model(read_exports(plan, finished)) if (letter := files.get(weights_of(one)))}
    shown = [row for row in content["rows"] if row["letter"] in own and (row["batch"], row["threads"], row["length"]) == chosen]
    exported = {own[row["letter"]]: row["p50_ms"] / row["batch"] for row in shown}
    return Latencies(milliseconds, exported, _text([*rows, *shown], content))


def measure(plan: Plan, finished: dict[str, Finished]) -> None:
    """Measure the teacher and each student of one task, and their exports, unless latency.json has exactly their weights."""
    jobs = dict(reversed(list(_jobs(finished))))  # the first finished run of each model
    exports = dict(reversed(list(_exports_by_model(read_exports(plan, finished)))))
    path, weights = plan.root / FILE, {_weights(report_of(job)["files"]) for job in jobs.values()}
    if path.is_file():
        models = _read(str(path), path)["models"]
        files = {digest for model in models if model["form"] == EXPORTED_FORM for digest in model["files"].values()}
        known = {_weights(model["files"]) for model in models if model["form"] == FORM}
        if weights <= known and {weights_of(one) for one in exports.values()} <= files:
            return
    length = min(MOST_TOKENS, *(plan.config(task, job.words).data.max_length for task in finished for job in _of(finished[task], jobs)))
    words: dict[str, Any] = {"batch": [1], "length": [length], "threads": [1], "repetitions": REPETITIONS, "target_ms": None, "plot": None}
    models = [str(jobs[name].folder / "student") for name in plan.learners if name in jobs]
    models += [exports[name].folder for name in plan.learners if name in exports]
    latency.run(argparse.Namespace(models=models, json=str(path), **words))


def _jobs(finished: dict[str, Finished]) -> Iterator[tuple[str, Job]]:
    """(model, run) of every finished run, task by task."""
    for runs in finished.values():
        for learner, jobs in runs.items():
            for job in jobs.values():
                yield learner, job


def _exports_by_model(exports: Exports) -> Iterator[tuple[str, Export]]:
    """(model, export) of every export, task by task."""
    for models in exports.values():
        yield from models.items()


def _of(runs: Finished, chosen: dict[str, Job]) -> list[Job]:
    """The runs of a task that are among the chosen."""
    return [job for jobs in runs.values() for job in jobs.values() if job in chosen.values()]


def _weights(files: dict[str, str]) -> frozenset[str]:
    """The digests of the weights among a model's files."""
    return frozenset(digest for name, digest in files.items() if name.endswith(".safetensors"))


def _text(rows: list[dict[str, Any]], content: dict[str, Any]) -> str:
    shown = rows[0]
    forms = FORM if len({row["form"] for row in rows}) == 1 else f"{FORM} and {EXPORTED_FORM}"
    text = f"Latency: {forms}, {shape_text(shown)}, median of {shown['repetitions']}, {content['processor']}."
    if all(row["trusted"] for row in rows):
        return text
    worst = max(row["wall_per_cpu"] for row in rows)
    return f"{text} Other processes had the core: wall time was up to {worst:.2f} times CPU time. Measure again on an idle machine."


def _read(where: str, path: Path) -> dict[str, Any]:
    """The content of a file of `stillhouse latency --json`. Raises LaunchError for another one."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise LaunchError(
            f"{where}: expected true or a file of stillhouse latency --json, got {path}, {error.strerror}; correct it"
        ) from None
    except ValueError:
        content = None
    if not isinstance(content, dict) or content.get("format") != latency.FORMAT:
        raise LaunchError(f"{where}: expected a file of stillhouse latency --json, got another in {path}; measure again")
    return content
