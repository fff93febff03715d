"""Checkpoints on a disk: their progress, whether they are whole, which is the newest, which are removed. Imports no torch."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kd.errors import KdError
from stillhouse.digests import canonical_sha256
from stillhouse.errors import one_line
from stillhouse.files import sha256_of_file

FORMAT = 1
WEIGHTS, MOMENTS, STATE = "weights.safetensors", "moments.safetensors", "state.json"
TEMPORARY = ".writing-"


@dataclass(frozen=True)
class Progress:
    """Progress of a run: finished and skipped updates, tokens seen, and the caller's own facts (cursor, scores, run id, config)."""

    done: int
    skipped: int
    tokens: int
    facts: dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint whose state.json is intact."""

    folder: Path
    progress: Progress
    files: dict[str, dict[str, Any]]

    @property
    def bytes(self) -> int:
        """Size of weights and moments."""
        return sum(int(written["bytes"]) for written in self.files.values())

    def verify(self) -> None:
        """Raise KdError unless every file has the size and sha256 it was written with."""
        for name, written in self.files.items():
            path = self.folder / name
            try:
                _verify(path, written)
            except OSError as error:
                raise KdError(f"{path}: expected a readable file, got {one_line(error)}; the checkpoint is not usable") from error


def _verify(path: Path, written: dict[str, Any]) -> None:
    if not path.is_file():
        raise KdError(f"{path}: expected a file of {written['bytes']} bytes, got none; the checkpoint is not usable")
    if path.stat().st_size != written["bytes"]:
        raise KdError(f"{path}: expected {written['bytes']} bytes, got {path.stat().st_size}; the checkpoint is not usable")
    if sha256_of_file(path) != written["sha256"]:
        raise KdError(f"{path}: expected sha256 {written['sha256'][:12]}…, got another; the checkpoint is not usable")


def newest_good(folder: Path, before: int | None = None) -> tuple[Checkpoint | None, list[str]]:
    """The newest checkpoint (of an update below `before`) that verifies, and one line for each newer one that was passed over."""
    passed_over = []
    for candidate in sorted(folder.glob("update-*"), reverse=True):
        if before is not None and candidate.name >= f"update-{before:08d}":
            continue
        try:
            checkpoint = read(candidate)
            checkpoint.verify()
        except KdError as error:
            passed_over.append(str(error))
            continue
        return checkpoint, passed_over
    return None, passed_over


def read(folder: Path) -> Checkpoint:
    """A checkpoint's state.json, proven intact (its files are proven by `verify`)."""
    path = folder / STATE
    if path.exists() and not path.is_file():  # a pipe would be waited for, for ever
        raise KdError(f"{path}: expected a file, got something else; the checkpoint is not usable")
    try:
        body = json.loads(path.read_text(encoding="utf-8"))
        digest = body.pop("digest")
        if body["format"] != FORMAT:
            raise KdError(f"{path}: expected checkpoint format {FORMAT}, got {body['format']}; use the version that wrote it")
        if digest != canonical_sha256(body, ascii_only=True):
            raise KdError(f"{path}: expected digest {digest[:12]}…, got another; the checkpoint is not usable")
        progress = Progress(int(body["done"]), int(body["skipped"]), int(body["tokens"]), dict(body["facts"]))
        files = {
            name: {"bytes": int(body["files"][name]["bytes"]), "sha256": str(body["files"][name]["sha256"])} for name in (WEIGHTS, MOMENTS)
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise KdError(
            f"{path}: expected a checkpoint's state, got {type(error).__name__}: {error}; the checkpoint is not usable"
        ) from error
    return Checkpoint(folder, progress, files)


def prune(folder: Path, keep_last: int, keep_best: int) -> list[Path]:
    """Remove unfinished writes, and what is neither among the newest `keep_last` nor the `keep_best` with the lowest held-out loss."""
    for unfinished in folder.glob(f"{TEMPORARY}*"):
        shutil.rmtree(unfinished, ignore_errors=True) if unfinished.is_dir() else unfinished.unlink(missing_ok=True)
    candidates = sorted(folder.glob("update-*"))
    kept = set(candidates[-keep_last:])
    scored = []
    for candidate in candidates:
        try:
            loss = read(candidate).progress.facts.get("heldout_loss")
        except KdError:
            continue
        if loss is not None:
            scored.append((float(loss), candidate))
    kept |= {candidate for _, candidate in sorted(scored)[:keep_best]}
    removed = [candidate for candidate in candidates if candidate not in kept]
    for candidate in removed:
        shutil.rmtree(candidate, ignore_errors=True)
    return removed
