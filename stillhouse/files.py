"""Files that are whole and on the disk. ROOT is the folder of the project's packages."""

import hashlib
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The folder that holds launcher, kd, data_shards, configs: a clone, or site-packages."""


def write_atomically(path: Path, content: str | bytes, sync: bool = True, shared: bool = False) -> None:
    """Replace a file. After a crash it holds the old content or the new content, never a part. Text is written as UTF-8.

    sync: content and name are on the disk when this returns.
    shared: other processes may write the same file at the same time, as in a cache.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = temporary_path(path)
    if shared:
        temporary = temporary.with_name(f"{temporary.name}.{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            if sync:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        sync_path(path.parent)


def temporary_path(path: Path) -> Path:
    """The hidden file in the folder of `path` that is renamed to `path` when it is complete. Builds remove such files after a kill."""
    return path.with_name(f".{path.name.lstrip('.')}.partial")


def sync_path(path: Path) -> None:
    """Wait until the content of a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256_of_file(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_folder() -> Path:
    """STILLHOUSE_CACHE, or `stillhouse` in the user's cache folder."""
    if own := os.environ.get("STILLHOUSE_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "stillhouse"
