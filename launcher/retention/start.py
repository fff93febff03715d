"""The model that a student of a proof starts from: its folder, and the tokens and the teacher of its pretraining.

A run folder has them in report.json. A student's folder without its run has them in its card. A model from elsewhere has neither.
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd.export.files import CARD
from launcher.config.load import parse_config
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.run_folder.folder import RunFolder

PATH = re.compile(r"[/.~]|[^/]*/[^/]*/")
"""The beginning of a text that can be a folder only, and no name of the hub."""
TOKENS = re.compile(r"^\| tokens \| ([\d,]+) \|$", re.M)
TEACHER = re.compile(r"^\| teacher \| (.+) \|$", re.M)


@dataclass(frozen=True)
class Start:
    """model: a folder or hub name. tokens: positions that its pretraining read, null where unknown. distilled: false for a pretraining
    without a teacher."""

    model: str
    tokens: int | None = None
    distilled: bool = True

    @property
    def name(self) -> str:
        """The run's folder, or the model's, without the folders above it; a hub name as it is."""
        path = Path(self.model)
        return self.model if not path.exists() else path.resolve().parent.name if path.name == "student" else path.resolve().name


def read_start(where: str, start: str) -> Start:
    """The model of a run folder, of its student/ folder, or of any model folder or hub name. Raises LaunchError where there is none."""
    path = Path(start).expanduser()
    if not path.exists() and not PATH.match(start):
        return Start(start)
    if not path.is_dir():
        got = "a file" if path.exists() else "nothing there"
        raise LaunchError(f"{where}: expected a model folder or a run folder, got {start}, {got}; check the path")
    run = RunFolder(path)
    if (path / "config.json").is_file():
        parent = RunFolder(path.resolve().parent)
        own = path.resolve() == parent.student and parent.report.is_file()
        return _of_run(parent, path) if own else _of_card(path)
    if (run.student / "config.json").is_file() and run.report.is_file():
        return _of_run(run, run.student)
    if run.configuration.is_file():
        raise LaunchError(f"{where}: expected a finished run, got {start} without a student; start that run again to finish it")
    raise LaunchError(f"{where}: expected a model folder or a run folder, got {start} without config.json; check the path")


def _of_run(run: RunFolder, model: Path) -> Start:
    try:
        report: Any = json.loads(run.report.read_text(encoding="utf-8"))
        config = parse_config(run.configuration.read_text(encoding="utf-8"), str(run.configuration))
    except (OSError, ValueError, LaunchError):  # a run of another version, or a folder that a user made
        return _of_card(model)
    if isinstance(config, TaskRunConfig) or not isinstance(report, dict) or not isinstance(report.get("tokens"), int):
        return Start(str(model))
    before = 0 if config.student.init == "teacher" else _earlier(config.student.init)
    return Start(str(model), before + report["tokens"], bool(config.members))


def _earlier(model: str) -> int:
    """The tokens of the run that a run began with; 0 for a model from elsewhere."""
    try:
        return read_start("", model).tokens or 0
    except LaunchError:
        return 0


def _of_card(model: Path) -> Start:
    card = model / CARD
    text = card.read_text(encoding="utf-8", errors="replace") if card.is_file() else ""
    tokens, teacher = TOKENS.search(text), TEACHER.search(text)
    if tokens is None or teacher is None or "Stillhouse" not in text:
        return Start(str(model))
    return Start(str(model), int(tokens[1].replace(",", "")), teacher[1] != "none")
