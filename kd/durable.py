"""Files of tensors and text that are whole and on the disk, or say so: what checkpoints and caches are made of."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor


def save_tensors(tensors: dict[str, Tensor], path: Path) -> dict[str, Any]:
    """Write tensors durably: size and sha256 of the file, which has been read back and holds them bit by bit."""
    try:
        save_file(tensors, path)
        path.chmod(path.parent.stat().st_mode & 0o666)  # safetensors gives 0600; the folder has the user's umask
        sync(path)
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # what is read back comes from the disk
        with safe_open(path, "pt") as back:
            different = next((name for name, tensor in tensors.items() if not _same(back.get_tensor(name), tensor)), None)
    except (SafetensorError, RuntimeError) as error:  # safetensors hides the OSError of a full disk so, torch that of a file it cannot open
        raise OSError(f"{path}: {error}") from error
    if different is not None:
        raise OSError(f"{path}: read back other numbers for {different} than were written")
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def _same(one: Tensor, other: Tensor) -> bool:
    """Bit by bit, NaN included."""
    return one.shape == other.shape and torch.equal(one.flatten().view(torch.uint8), other.flatten().view(torch.uint8))


def write_text(path: Path, text: str) -> None:
    """A text file that is on the disk when this returns."""
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def sync(path: Path) -> None:
    """A file's content, or a folder's names, are on the disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest_of(body: dict[str, Any]) -> str:
    """sha256 of a JSON object, whatever its spelling."""
    return hashlib.sha256(json.dumps(body, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256_of(path: Path) -> str:
    """sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
