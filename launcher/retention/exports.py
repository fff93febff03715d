"""The models of a proof as ONNX files in INT8, by `stillhouse export`: their bytes, and their own score on dev.

One run of each model and task is exported, that of the first seed. An export that its comparison refuses is written all the same, and the
report says why: the proof is about figures.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kd.export.extra import onnx_module
from launcher.commands.parser import parser
from launcher.comparison.jobs import Job
from launcher.comparison.settings import folder_name
from launcher.deployment import export
from launcher.deployment.folder import MODEL, read_exported
from launcher.report.results import Exported
from launcher.retention.finished import Finished, report_of
from launcher.retention.plan import Plan
from launcher.retention.ship import PACKAGES
from stillhouse.errors import StillhouseError
from stillhouse.files import write_atomically

FOLDER, FILE = "onnx", "exports.json"
FORM = "INT8"


@dataclass(frozen=True)
class Export:
    """One exported model. source: sha256 of the weights that it was made from, by file. value: of the task's metric."""

    folder: str
    source: dict[str, str]
    bytes: int
    value: float | None
    problems: list[str] = field(default_factory=list)


Exports = dict[str, dict[str, Export]]
"""Task -> model -> export."""


def check_packages() -> None:
    """Raise KdError now, and not after hours of training, where a package of the extra `stillhouse[onnx]` is missing."""
    for package in PACKAGES:
        onnx_module(package)


def read_exports(plan: Plan, finished: dict[str, Finished]) -> Exports:
    """The exports that were made of the weights that are there now."""
    path = plan.root / FILE
    content = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    found: Exports = {}
    for task, runs in finished.items():
        for learner, jobs in runs.items():
            values = content.get(task, {}).get(learner)
            if jobs and values is not None and values["source"] == report_of(first_of(jobs))["files"] and Path(values["folder"]).is_dir():
                found.setdefault(task, {})[learner] = Export(**values)
    return found


def export_all(plan: Plan, finished: dict[str, Finished], say: Callable[[str], None]) -> None:
    """Export every model that has no export of its weights yet. A failure is said, and the others go on."""
    made = read_exports(plan, finished)
    for task, runs in finished.items():
        for learner, jobs in runs.items():
            if jobs and learner not in made.get(task, {}):
                try:
                    made.setdefault(task, {})[learner] = _export(plan, task, learner, first_of(jobs))
                except StillhouseError as error:
                    say(f"{task}: {learner}: not exported: {error}")
                content = {name: {model: asdict(one) for model, one in exports.items()} for name, exports in made.items()}
                write_atomically(plan.root / FILE, json.dumps(content, indent=1) + "\n")


def first_of(jobs: dict[int, Job]) -> Job:
    """The run of the first seed."""
    return next(iter(jobs.values()))


def weights_of(one: Export) -> str:
    """sha256 of an export's ONNX file."""
    return str(read_exported(one.folder).record["files"][MODEL])


def described(export_of_model: Export, latency_ms: float | None) -> Exported:
    """An export in the report's form."""
    one = export_of_model
    return Exported(form=FORM, bytes=one.bytes, value=one.value, latency_ms=latency_ms, problems=one.problems)


def _export(plan: Plan, task: str, learner: str, job: Job) -> Export:
    out = plan.root / FOLDER / folder_name(task) / folder_name(learner)
    out.parent.mkdir(parents=True, exist_ok=True)
    words = ["export", str(job.folder / "student"), "--precision", "int8", "--out", str(out), "--force"]
    export.run(parser().parse_args([*words, "--task-config", str(job.folder / "config.yaml")]))
    record: dict[str, Any] = read_exported(out).record
    report, quality = report_of(job), record["quality"]
    measured = quality is not None and quality["metric"] == report["task"]["metric"]
    value = float(quality["exported"]) if measured else None
    return Export(str(out), report["files"], int(record["bytes"]), value, list(record["written_in_spite_of"]))
