"""Finished runs of a proof, and the facts of their report.json."""

import json
from typing import Any

from launcher.comparison.jobs import Job
from launcher.run_folder.metrics_file import read

Finished = dict[str, dict[int, Job]]
"""A task's finished runs: model -> seed -> run."""


def report_of(job: Job) -> dict[str, Any]:
    """report.json of a finished run."""
    return dict(json.loads((job.folder / "report.json").read_text(encoding="utf-8")))


def score_of(job: Job) -> float:
    """The deciding metric of a finished run on dev."""
    report = report_of(job)
    return float(report["dev"][report["task"]["metric"]])


def chose_on_train(report: dict[str, Any]) -> bool:
    """True if a part of train chose the weights (evaluate.choose_on), so dev was not used for it."""
    return bool(report["rows"].get("choose"))


def choosing_score(job: Job) -> float:
    """The score that compares the learning rates: on the part of train that chose the weights, or on dev where there is none."""
    report = report_of(job)
    if not chose_on_train(report):
        return score_of(job)
    key = f"heldout_{report['task']['metric']}"
    scores = {int(line["update"]): float(line[key]) for line in read(job.folder / "metrics.jsonl") if key in line}
    return scores[int(report.get("best_update") or max(scores))] if scores else score_of(job)
