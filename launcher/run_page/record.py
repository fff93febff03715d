"""A run folder, read for its page: settings, environment, numbers, events, and what the folder does not have. Writes nothing."""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from launcher.config.yaml_file import parse_yaml
from launcher.errors import LaunchError
from launcher.redaction import redacted
from launcher.run_folder.folder import SAMPLES, RunFolder
from launcher.run_folder.lock import owner_of
from launcher.run_folder.metrics_file import read
from launcher.run_folder.state import RunState, run_state
from stillhouse.errors import one_line

PREDICTIONS = "predictions.jsonl"
MOST_BYTES = 64 << 20
"""Of predictions.jsonl that are read."""
Line = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """A run as its folder tells it. Credentials in URLs are ***.

    values: the settings of config.yaml. environment, report: the JSON files; empty where there are none. train, heldout, events: lines of
    metrics.jsonl. predictions: lines of predictions.jsonl. samples: some of them with their texts. missing: what is not recorded, with the
    reason.
    """

    folder: Path
    name: str
    state: RunState
    values: dict[str, Any]
    environment: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    train: Sequence[Line] = ()
    heldout: Sequence[Line] = ()
    events: Sequence[Line] = ()
    layer_maps: str = ""
    layer_similarity: str = ""
    predictions: Sequence[Line] = ()
    samples: Sequence[Line] = ()
    missing: Sequence[str] = ()

    @property
    def is_task(self) -> bool:
        """True for a run on a task, False for a run on text."""
        data = section(self.values, "data")
        return "shards" not in data and bool(data)

    @property
    def last(self) -> Mapping[str, Any]:
        """The newest train line; empty before the first."""
        return self.train[-1] if self.train else {}


def read_run(folder: Path, ended: bool = False) -> Record:
    """The record of a run. ended: the run that owns the folder is at its end, so nobody is asked whether it is alive.

    Raises LaunchError for a folder that is no run, and for a damaged metrics.jsonl.
    """
    if not (folder / "config.yaml").is_file():
        raise LaunchError(f"{folder}: expected a run folder with config.yaml, got none; check the path")
    run, missing = RunFolder(folder), []
    values: dict[str, Any] = {}
    try:
        values = redacted(parse_yaml("config.yaml", run.configuration.read_text(encoding="utf-8")))
    except (LaunchError, OSError, ValueError) as error:
        missing.append(f"settings ({one_line(error)})")
    environment, problem = _json(folder / "environment.json")
    missing += [f"environment ({problem})"] * bool(problem)
    report, problem = _json(run.report)
    missing += [f"size and final scores ({problem})"] * bool(problem)
    try:
        lines = [redacted(line) if line["kind"] == "event" else line for line in (read(run.metrics) if run.metrics.exists() else [])]
    except OSError as error:
        raise LaunchError(f"{run.metrics}: expected a readable file, got {error.strerror}; see its mode and its disk") from None
    return Record(
        folder=folder,
        name=str(section(values, "run").get("name") or folder.absolute().name),
        state=run_state(run, lines, None if ended else owner_of(folder)),
        values=values,
        environment=environment,
        report=report,
        train=[line for line in lines if line["kind"] == "train"],
        heldout=[line for line in lines if line["kind"] == "heldout"],
        events=[line for line in lines if line["kind"] == "event"],
        layer_maps=_text(run.layer_maps),
        layer_similarity=_text(run.layer_similarity),
        predictions=_predictions(folder / PREDICTIONS),
        samples=_predictions(folder / SAMPLES),
        missing=missing,
    )


def section(values: Any, name: str) -> dict[str, Any]:
    """A section of settings; empty where there is none."""
    found = values.get(name) if isinstance(values, dict) else None
    return found if isinstance(found, dict) else {}


def items(values: Any, name: str) -> list[dict[str, Any]]:
    """A list of settings; one section counts as a list of one."""
    found = values.get(name) if isinstance(values, dict) else None
    found = [found] if isinstance(found, dict) else found if isinstance(found, list) else []
    return [one for one in found if isinstance(one, dict)]


def _json(path: Path) -> tuple[dict[str, Any], str]:
    """(content, problem): one of the two is empty."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}, f"no {path.name}"
    except (OSError, ValueError, RecursionError) as error:
        return {}, f"{path.name}: {one_line(error)}"
    return (redacted(values), "") if isinstance(values, dict) else ({}, f"{path.name} has no settings")


def _text(path: Path) -> str:
    with suppress(OSError):
        return str(redacted(path.read_text(encoding="utf-8", errors="replace")[:MOST_BYTES]))
    return ""


def _predictions(path: Path) -> list[Line]:
    lines = []
    with suppress(OSError):
        for text in _text(path).splitlines():
            with suppress(ValueError, RecursionError):
                value = json.loads(text)
                if isinstance(value, dict) and "prediction" in value:
                    lines.append(value)
    return lines


def first(lines: Sequence[Line], count: int) -> list[Line]:
    """The first lines, at most `count`."""
    return list(islice(lines, count))
