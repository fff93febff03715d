"""Finished runs of a proof, and the facts of their report.json."""

import json
from typing import Any

from launcher.comparison.jobs import Job

Finished = dict[str, dict[int, Job]]
"""A task's finished runs: model -> seed -> run."""


def report_of(job: Job) -> dict[str, Any]:
    """report.json of a finished run."""
    return dict(json.loads((job.folder / "report.json").read_text(encoding="utf-8")))


def score_of(job: Job) -> float:
    """The deciding metric of a finished run on dev."""
    report = report_of(job)
    return float(report["dev"][report["task"]["metric"]])
