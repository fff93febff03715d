"""`stillhouse wandb-replay RUN`: one clean W&B run, rebuilt from the run folder's metrics.jsonl."""

import argparse
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.config.load import parse_config
from launcher.config.run_config import ReportSettings
from launcher.errors import LaunchError
from launcher.reporting.wandb import WandB
from launcher.run_folder.folder import SAMPLES, RunFolder
from launcher.run_folder.metrics_file import METRICS, read


def run(arguments: argparse.Namespace) -> int:
    """Rebuild under a new id, which W&B has not seen, and say it."""
    folder = Path(arguments.folder)
    path = folder / "config.yaml"
    if not path.is_file():
        raise LaunchError(f"{folder}: expected a run folder with config.yaml, got none; check the path")
    config = parse_config(path.read_text(encoding="utf-8"), str(path))
    settings = ReportSettings(wandb=arguments.mode, project=arguments.project, entity=arguments.entity)
    settings = settings.model_copy(update={"artifact": config.report.artifact})
    values = config.model_dump(mode="json") | RunFolder(folder).origin(config)
    run_id = replay(folder, settings, name=config.name, config=values, run_id=secrets.token_hex(4))
    print(f"replayed {folder} as W&B run {run_id}")
    return 0


def replay(folder: Path, settings: ReportSettings, *, name: str, config: Mapping[str, Any], run_id: str, into: Path | None = None) -> str:
    """Rebuild one clean W&B run from metrics.jsonl, under an id that W&B has not seen; the id.

    into: where W&B keeps its files; default `folder`. Raises LaunchError when there is nothing to replay or W&B did not take all of it, and
    W&B's own errors as they are.
    """
    metrics = folder / METRICS
    if not metrics.is_file():
        raise LaunchError(f"{metrics}: expected the reports of a run, got none; check the folder")
    if settings.wandb == "off":
        raise LaunchError("report.wandb: expected online or offline to replay to, got off; choose one")
    lines = read(metrics)
    run = WandB(settings, into or folder, name=name, config=config, run_id=run_id, say=print)
    run.sent.know(-1)
    run.catch_up(lines, anew=True)
    if (rows := _samples(folder)) and lines:
        run.table(max(line["update"] for line in lines), rows)
    if settings.artifact != "none" and RunFolder(folder).student.is_dir():
        run.artifact(RunFolder(folder).student, {"name": name}, settings.artifact == "upload")
    if not run.finish(0):
        raise LaunchError(f"{folder}: expected W&B to take every line, got what is said above; replay again when its server answers")
    return run_id


def _samples(folder: Path) -> list[dict[str, Any]]:
    """The masked sentences that a run on text left; [] where there are none."""
    with suppress(OSError, ValueError):
        rows = [json.loads(line) for line in (folder / SAMPLES).read_text(encoding="utf-8").splitlines()]
        return rows if all("student" in row for row in rows) else []
    return []
