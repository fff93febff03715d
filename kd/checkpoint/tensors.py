"""Files of tensors and text that are whole and on the disk, or say so: what checkpoints and caches are made of."""

import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stillhouse.files import sha256_of_file, sync_path


def save_tensors(tensors: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """Write tensors durably: size and sha256 of the file, which has been read back and holds them bit by bit."""
    try:
        save_file(tensors, path)
        path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors gives 0600; the folder has the user's umask
        sync_path(path)
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # what is read back comes from the disk
        with safe_open(path, "pt") as back:
            different = next((name for name, tensor in tensors.items() if not _same(back.get_tensor(name), tensor)), None)
    except (SafetensorError, RuntimeError) as error:  # safetensors hides the OSError of a full disk so, torch that of a file it cannot open
        raise OSError(f"{path}: {error}") from error
    if different is not None:
        raise OSError(f"{path}: read back other numbers for {different} than were written")
    return {"bytes": path.stat().st_size, "sha256": sha256_of_file(path)}


def _same(one: Tensor, other: Tensor) -> bool:
    """Bit by bit, NaN included."""
    return one.shape == other.shape and torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))
