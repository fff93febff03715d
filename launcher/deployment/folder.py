"""The folder of an exported model: weights, tokenizer.json, stillhouse.json and a README. It appears whole or not at all."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any

from kd.export.files import CARD
from launcher.errors import LaunchError
from stillhouse.digests import canonical_sha256
from stillhouse.errors import one_line
from stillhouse.files import sha256_of_file, sync_path

RECORD = "stillhouse.json"
MODEL = "model.onnx"
TOKENIZER = "tokenizer.json"
FORMAT = "stillhouse export 1"
SEAL = "record_sha256"
"""The digest of a record's other entries. Exports of earlier versions have none."""
NEEDED: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "model_format": (str,),
    "precision": (str,),
    "labels": (list,),
    "mask_token": (str, NoneType),
    "pad_id": (int, NoneType),
    "max_tokens": (int,),
    "vocabulary": (int,),
}
"""The entries of a record that other commands read, with their types."""
TASKS = ("classification", "multi_label", "regression", "tagging", "question_answering", "masked_lm", "hidden")


@dataclass(frozen=True)
class ExportedFolder:
    """An exported folder whose files are those that its record describes."""

    path: Path
    record: dict[str, Any]


def sealed(record: dict[str, Any]) -> str:
    """The text of a record's file, with the digest of its entries."""
    content = {key: value for key, value in record.items() if key != SEAL}
    return json.dumps(content | {SEAL: _digest(content)}, indent=1, ensure_ascii=False) + "\n"


def _digest(record: dict[str, Any]) -> str:
    content = {key: value for key, value in record.items() if key != SEAL}
    return canonical_sha256(json.loads(json.dumps(content)), ascii_only=True)  # as it is read back: keys are text, tuples are lists


def is_exported(path: str | Path) -> bool:
    """True for a folder that `stillhouse export` wrote."""
    return (Path(path) / RECORD).is_file()


def read_exported(path: str | Path) -> ExportedFolder:
    """An exported folder. Raises LaunchError for a record that cannot be read, and for a file that was changed since the export."""
    folder = Path(path)
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if not isinstance(record, dict):
            raise ValueError(f"JSON of type {type(record).__name__}")
        files = dict(record["files"])
        known = record["format"] == FORMAT
        if lacking := [name for name in NEEDED if name not in record]:
            raise KeyError(lacking[0])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise LaunchError(f"{folder / RECORD}: expected the record of an export, got {one_line(error)}; export the model again") from error
    if not known:
        raise LaunchError(f"{folder / RECORD}: expected format {FORMAT!r}, got {record['format']!r}; export the model again")
    wrong = [name for name, types in NEEDED.items() if type(record[name]) not in types]
    wrong += [] if record["task"] in TASKS else ["task"]
    if wrong:
        value = json.dumps(record[wrong[0]], ensure_ascii=False)[:40]
        raise LaunchError(f"{folder / RECORD}: expected {wrong[0]} as an export writes it, got {value}; export the model again")
    if record["model_format"] == "onnx" and MODEL not in files:
        raise LaunchError(f"{folder / RECORD}: expected the sha256 of {MODEL}, got none; export the model again")
    if SEAL in record and record[SEAL] != _digest(record):
        raise LaunchError(f"{folder / RECORD}: expected the record as it was written, got a changed one; export the model again")
    for name, digest in files.items():
        file = folder / name
        got = sha256_of_file(file) if file.is_file() else "no file"
        if got != digest:
            raise LaunchError(f"{file}: expected sha256 {digest[:12]}… as exported, got {got[:12]}; export the model again")
    return ExportedFolder(folder, record)


def check_target(folder: Path) -> None:
    """Raise LaunchError for a target that holds something other than an earlier export."""
    if folder.exists() and not is_exported(folder) and (not folder.is_dir() or any(folder.iterdir())):
        raise LaunchError(f"{folder}: expected a free name or an earlier export to replace, got something else; choose another --out")


def write_folder(folder: Path, fill: Callable[[Path], dict[str, Any]]) -> None:
    """Write an exported folder, replacing an earlier export there. fill: writes the files into a folder, and gives the record.

    README.md is not among the files whose digests are recorded: people edit it.
    """
    check_target(folder)
    partial, earlier = (folder.with_name(f".{folder.name}.{state}-{os.getpid()}") for state in ("partial", "earlier"))
    try:
        partial.mkdir(parents=True)
        record = {"format": FORMAT, **fill(partial)}
        names = sorted(file.name for file in partial.iterdir() if file.name != CARD)
        record["files"] = {name: sha256_of_file(partial / name) for name in names}
        (partial / RECORD).write_text(sealed(record), encoding="utf-8")
        for file in partial.iterdir():
            file.chmod(partial.stat().st_mode & 0o666)
            sync_path(file)
        if folder.exists():
            folder.rename(earlier)
        partial.rename(folder)
        sync_path(folder.parent)
    except OSError as error:
        if earlier.exists() and not folder.exists():
            earlier.rename(folder)
        raise LaunchError(f"{folder}: expected to write the export there, got {one_line(error)}; free space or choose another") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(earlier, ignore_errors=True)
