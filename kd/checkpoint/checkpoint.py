"""Checkpoints that are whole or absent: full fp32 state by parameter name, the same for any number of ranks and any ZeRO stage.

`FOLDER/update-00001234/` holds weights.safetensors, moments.safetensors and state.json (progress, cursor, scores, size and sha256 of the
others, and a digest of itself). It is written under a temporary name, synced, read back and compared, renamed, then named in
`FOLDER/latest`. Nothing is pickled, nothing read runs code.
"""

import json
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kd.checkpoint.tensors import save_tensors
from kd.errors import KdError
from stillhouse.digests import canonical_sha256
from stillhouse.errors import one_line
from stillhouse.files import sha256_of_file, sync_path, write_atomically

FORMAT = 1
WEIGHTS, MOMENTS, STATE = "weights.safetensors", "moments.safetensors", "state.json"
TEMPORARY = ".writing-"
STUDENT = "student."  # prefix of the student's parameters; the others are projections


@dataclass(frozen=True)
class Progress:
    """How far a run had come: finished and skipped updates, tokens seen, and the caller's own facts (cursor, scores, run id, config)."""

    done: int
    skipped: int
    tokens: int
    facts: dict[str, Any]


class FullState(NamedTuple):
    """Weights by name, and AdamW's moments by name and key, fp32 on the CPU."""

    weights: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]

    @property
    def student(self) -> dict[str, Tensor]:
        """The student's weights, by their names in the student."""
        return {name.removeprefix(STUDENT): weight for name, weight in self.weights.items() if name.startswith(STUDENT)}


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

    def load(self) -> FullState:
        """The state in its files."""
        try:
            weights = load_file(self.folder / WEIGHTS)
            flat = load_file(self.folder / MOMENTS)
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise KdError(f"{self.folder}: expected readable safetensors, got {error}; the checkpoint is not usable") from error
        moments: dict[str, dict[str, Tensor]] = {}
        for name, value in flat.items():
            key, _, parameter = name.partition("/")
            moments.setdefault(parameter, {})[key] = value
        return FullState(weights, moments)


def _verify(path: Path, written: dict[str, Any]) -> None:
    if not path.is_file():
        raise KdError(f"{path}: expected a file of {written['bytes']} bytes, got none; the checkpoint is not usable")
    if path.stat().st_size != written["bytes"]:
        raise KdError(f"{path}: expected {written['bytes']} bytes, got {path.stat().st_size}; the checkpoint is not usable")
    if sha256_of_file(path) != written["sha256"]:
        raise KdError(f"{path}: expected sha256 {written['sha256'][:12]}…, got another; the checkpoint is not usable")


State = Iterable[tuple[str, Tensor, dict[str, Tensor]]]
"""(name, fp32 weight, moments) of one parameter after the other."""


@dataclass(frozen=True)
class Held:
    """Copies of a whole state in this host's memory: what goes on training cannot change them."""

    weights: dict[str, Tensor]
    moments: dict[str, Tensor]


def hold(state: State) -> Held:
    """Copy a state to the host."""
    held = Held({}, {})
    for name, weight, kept in state:
        held.weights[name] = weight.detach().to("cpu", copy=True).contiguous()
        held.moments.update({f"{key}/{name}": value.detach().to("cpu", copy=True).contiguous() for key, value in kept.items()})
    return held


def write(folder: Path, progress: Progress, state: State) -> Path:
    """Write one checkpoint (on one rank only) and return its folder. See `store`."""
    return store(folder, progress, hold(state))


def store(folder: Path, progress: Progress, held: Held) -> Path:
    """Write one checkpoint and return its folder: it has its name only when it has been read back as it was meant.

    An OSError leaves nothing behind and what was there untouched.
    """
    final = folder / f"update-{progress.done:08d}"
    temporary = folder / f"{TEMPORARY}{final.name}"
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        files = {name: save_tensors(tensors, temporary / name) for name, tensors in ((WEIGHTS, held.weights), (MOMENTS, held.moments))}
        body = {
            "format": FORMAT,
            "done": progress.done,
            "skipped": progress.skipped,
            "tokens": progress.tokens,
            "facts": progress.facts,
            "files": files,
        }
        write_atomically(
            temporary / STATE, json.dumps(body | {"digest": canonical_sha256(body, ascii_only=True)}, indent=1, sort_keys=True)
        )
        sync_path(temporary)
        if final.exists():
            shutil.rmtree(final)
        os.rename(temporary, final)
        sync_path(folder)
        pointer = folder / f"{TEMPORARY}latest"
        write_atomically(pointer, final.name + "\n")
        os.replace(pointer, folder / "latest")
        sync_path(folder)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return final


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
