"""`stillhouse wandb-replay RUN`: one clean W&B run, rebuilt from the run folder's metrics.jsonl."""

import argparse
import secrets
from pathlib import Path

from launcher import config as configuration
from launcher import reporters
from launcher.errors import LaunchError
from launcher.reporters import ReportSettings


def run(arguments: argparse.Namespace) -> int:
    """Rebuild under a new id, which W&B has not seen, and say it."""
    folder = Path(arguments.folder)
    path = folder / "config.yaml"
    if not path.is_file():
        raise LaunchError(f"{folder}: expected a run folder with config.yaml, got none; check the path")
    config = configuration.parse(path.read_text(encoding="utf-8"), str(path))
    settings = ReportSettings(wandb=arguments.mode, project=arguments.project, entity=arguments.entity)
    values = config.model_dump(mode="json")
    run_id = reporters.replay(folder, settings, name=config.name, config=values, run_id=secrets.token_hex(4))
    print(f"replayed {folder} as W&B run {run_id}")
    return 0
