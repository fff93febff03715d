"""The files with measured figures below some folders: reports of proofs and of runs, records of exports, times of `stillhouse latency`."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launcher.deployment.folder import FORMAT as EXPORT
from launcher.deployment.folder import RECORD
from launcher.errors import LaunchError
from stillhouse.errors import one_line

REPORT = "report.json"
DEFAULT_FOLDERS = ("runs", "shipped")
MOST_BYTES = 50_000_000
"""Larger JSON files are no report."""
SKIPPED = ("checkpoints", "predictions", ".git")


@dataclass
class Measured:
    """The files by kind, each with its content. others: report files that could not be read, with the reason."""

    proofs: dict[Path, dict[str, Any]] = field(default_factory=dict)
    runs: dict[Path, dict[str, Any]] = field(default_factory=dict)
    exports: dict[Path, dict[str, Any]] = field(default_factory=dict)
    latencies: dict[Path, dict[str, Any]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)

    def add(self, path: Path, content: dict[str, Any]) -> bool:
        """Sort a file by its content; False for a JSON file that is none of the kinds."""
        if content.get("format") == EXPORT:
            self.exports[path] = content
        elif isinstance(content.get("rows"), list) and isinstance(content.get("processor"), str):
            self.latencies[path] = content
        elif isinstance(content.get("tasks"), list) and "averages" in content:
            self.proofs[path] = content
        elif isinstance(content.get("task"), dict) and isinstance(content.get("dev"), dict):
            self.runs[path] = content
        else:
            return False
        return True


def read_measured(places: list[str]) -> Measured:
    """Everything that was measured below these folders, or in these files; in the default folders where none is given.

    Raises LaunchError for a place that does not exist, and for a file given by name that is not a report.
    """
    if not places and not (places := [name for name in DEFAULT_FOLDERS if Path(name).is_dir()]):
        raise LaunchError(f"FOLDER: expected folders with reports, got none, and no {' or '.join(DEFAULT_FOLDERS)} here; name one")
    measured = Measured()
    for place in map(Path, places):
        if place.is_file():
            content = _read(place)
            if isinstance(content, str) or not measured.add(place, content):
                got = content if isinstance(content, str) else "other JSON"
                raise LaunchError(
                    f"{place}: expected a report, the record of an export or times of stillhouse latency, got {got}; leave it out"
                )
        elif not place.is_dir():
            raise LaunchError(f"{place}: expected a folder with reports, got nothing there; correct the path")
        else:
            _add_folder(measured, place)
    return measured


def _add_folder(measured: Measured, folder: Path) -> None:
    for path in sorted(folder.rglob("*.json")):
        if any(part in SKIPPED or part.startswith(".") for part in path.relative_to(folder).parts[:-1]):
            continue
        content = _read(path)
        if isinstance(content, str):
            if path.name in (REPORT, RECORD):
                measured.others.append(f"{path}: {content}")
        else:
            measured.add(path, content)


def _read(path: Path) -> dict[str, Any] | str:
    """The JSON object of a file, or the reason why there is none."""
    try:
        if path.stat().st_size > MOST_BYTES:
            return "a larger file than any report"
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return one_line(error)
    return content if isinstance(content, dict) else f"JSON of type {type(content).__name__}"
