"""What a disturbed run is held to: all that the undisturbed one left."""

from pathlib import Path

import torch
from run_lines import facts
from safetensors.torch import load_file


def compare(run: Path, whole: Path) -> None:
    """AssertionError unless every report line, every held-out score, every token and every bit of the weights are the same."""
    for kind in ("train", "heldout"):
        if facts(run, kind) != facts(whole, kind):
            raise AssertionError(f"{run}: {kind} lines differ from those of the undisturbed run")
    ours, theirs = (load_file(folder / "student" / "model.safetensors") for folder in (run, whole))
    if ours.keys() != theirs.keys() or any(not torch.equal(weight, theirs[name]) for name, weight in ours.items()):
        raise AssertionError(f"{run}: weights differ from those of the undisturbed run")
