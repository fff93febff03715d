"""The facts of the checkpoint from which a run would continue, for its plan. Reads one small file, and verifies no weights."""

from pathlib import Path
from typing import Any

from kd.checkpoint import on_disk
from kd.errors import KdError
from launcher.config.run_config import AnyRunConfig
from launcher.planning.checks import CHECKPOINTS


def resumed_facts(config: AnyRunConfig) -> dict[str, Any] | None:
    """Of the newest checkpoint in the run folder whose state.json is intact; None: the run begins."""
    for folder in sorted((Path(config.run.folder).expanduser() / CHECKPOINTS).glob("update-*"), reverse=True):
        try:
            return on_disk.read(folder).progress.facts
        except KdError:
            continue
    return None
