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
from typing import NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from kd.checkpoint.on_disk import FORMAT, MOMENTS, STATE, TEMPORARY, WEIGHTS, Checkpoint, Progress
from kd.checkpoint.tensors import save_tensors
from kd.errors import KdError
from stillhouse.digests import canonical_sha256
from stillhouse.files import sync_path, write_atomically

STUDENT = "student."  # prefix of the student's parameters; the others are projections


class FullState(NamedTuple):
    """Weights by name, and AdamW's moments by name and key, fp32 on the CPU."""

    weights: dict[str, Tensor]
    moments: dict[str, dict[str, Tensor]]

    @property
    def student(self) -> dict[str, Tensor]:
        """The student's weights, by their names in the student."""
        return {name.removeprefix(STUDENT): weight for name, weight in self.weights.items() if name.startswith(STUDENT)}


def load_state(checkpoint: Checkpoint) -> FullState:
    """The weights and moments in a checkpoint's files. Raises KdError where they are not readable safetensors."""
    try:
        weights = load_file(checkpoint.folder / WEIGHTS)
        flat = load_file(checkpoint.folder / MOMENTS)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise KdError(f"{checkpoint.folder}: expected readable safetensors, got {error}; the checkpoint is not usable") from error
    moments: dict[str, dict[str, Tensor]] = {}
    for name, value in flat.items():
        key, _, parameter = name.partition("/")
        moments.setdefault(parameter, {})[key] = value
    return FullState(weights, moments)


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
