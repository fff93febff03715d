"""The files of a run or a model folder that are published, and the check that the run wrote them."""

import json
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from kd.export.files import CARD, MODEL_FILES, TOKENIZER_FILES
from launcher.errors import LaunchError
from stillhouse.errors import one_line
from stillhouse.files import sha256_of_file

PATTERNS = (CARD, *MODEL_FILES, *TOKENIZER_FILES)


@dataclass(frozen=True)
class PublishedFiles:
    """paths: the files to send, by name. left_out: bytes of what stays, by its name; hidden files are not listed.

    checked: the files were compared with the digests of the run, or there is no run.
    """

    folder: Path
    paths: tuple[Path, ...]
    left_out: dict[str, int]
    checked: bool


def published_files(run: Path) -> PublishedFiles:
    """The files of RUN/student, or of a model folder. Raises LaunchError without a finished student or with altered files."""
    if not run.is_dir():
        raise LaunchError(f"{run}: expected a run folder, got {'a file' if run.exists() else 'no folder'}; correct the path")
    folder = run if (run / "config.json").is_file() else run / "student"
    if not (folder / "config.json").is_file():
        raise LaunchError(f"{run}: expected a run with a student, got none; finish the run first: stillhouse doctor {run}")
    report = _read_report(run / "report.json")
    if folder != run and not report:
        raise LaunchError(f"{run}: expected a finished run with report.json, got none; finish the run first: stillhouse doctor {run}")
    known = sorted(path for path in folder.iterdir() if path.is_file() and any(fnmatch(path.name, pattern) for pattern in PATTERNS))
    if not (folder / CARD).is_file():
        raise LaunchError(f"{folder / CARD}: expected a model card, got none; write one, or export the student again")
    if not any(path.suffix == ".safetensors" for path in known):
        raise LaunchError(f"{folder}: expected weights in safetensors, got none; export the student again")
    digests = report.get("files")
    if isinstance(digests, dict):
        _check(folder, digests)
    others = [path for path in (*folder.iterdir(), *(run.iterdir() if folder != run else ())) if path not in (*known, folder)]
    left_out = {path.name: _bytes(path) for path in sorted(others, key=lambda path: path.name) if not path.name.startswith(".")}
    return PublishedFiles(folder, tuple(known), left_out, checked=folder == run or isinstance(digests, dict))


def _check(folder: Path, digests: dict[str, Any]) -> None:
    """LaunchError for an exported file that is missing or has other bytes than the run wrote."""
    for name, digest in digests.items():
        path = folder / str(name)
        got = "no file" if not path.is_file() else "" if sha256_of_file(path) == digest else "other bytes"
        if got:
            raise LaunchError(f"{path}: expected the file that the run wrote, got {got}; bring it back, or push the folder {folder} itself")


def _bytes(path: Path) -> int:
    """The size of a file, or of all files in a folder."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files)


def _read_report(path: Path) -> dict[str, Any]:
    """The content of report.json; {} where there is none. Raises LaunchError for a file that is no JSON object."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise LaunchError(f"{path}: expected the report of a run, got {one_line(error)}; restore it") from None
    if not isinstance(values, dict):
        raise LaunchError(f"{path}: expected the report of a run, got {type(values).__name__}; restore it")
    return values
