"""The folder of a build: one build at a time, with the settings that it was begun with."""

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from data_shards.build.settings import BuildSettings
from data_shards.errors import DataError
from data_shards.storage.manifest import MANIFEST, Manifest
from stillhouse.errors import one_line

LOCK = ".build.lock"


@contextmanager
def locked(folder: Path, lock: Path, kept: Callable[[], str] = lambda: "finished parts") -> Iterator[None]:
    """Hold the lock of a build or part. kept: names the work that a full disk does not undo, for the error.

    Raises DataError when another process holds the lock, and for errors of the disk.
    """
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: expected a folder, got a file; choose another")
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock, timeout=0):
            yield
    except Timeout:
        raise DataError(f"{folder}: expected no other build at work, got one that holds {lock.name}; wait for it") from None
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                f"{folder}: expected room on the disk, got {error.strerror}; free some and build again ({kept()} are kept)"
            ) from None
        raise DataError(
            f"{folder}: expected a folder that can be written, got {one_line(error)}; choose another, or change its permissions"
        ) from None


def finished(folder: Path, settings: BuildSettings) -> Manifest | None:
    """The manifest of a finished folder, or None. Raises DataError when it was built with other settings."""
    if not (folder / MANIFEST).is_file():
        return None
    manifest = Manifest.load(folder)
    refuse_other_settings(folder, manifest.built_from.settings, settings.model_dump(mode="json"), "shards built")
    return manifest


def refuse_other_settings(folder: Path, before: dict[str, Any], now: dict[str, Any], subject: str) -> None:
    """Raises DataError naming the first settings in which a folder's build differs from the requested one."""
    old, new = _leaves(before), _leaves(now)
    differences = [f"{key} {old.get(key)!r} -> {new.get(key)!r}" for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
    if differences:
        shown = "; ".join(difference[:200] for difference in differences[:3])
        raise DataError(f"{folder}: expected {subject} with the same settings, got {shown}; choose another folder, or remove this one")


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Nested settings as one flat mapping: {"sources.0.path": …}."""
    if not isinstance(value, dict | list | tuple):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value)
    return {leaf: setting for key, item in items for leaf, setting in _leaves(item, f"{name}.{key}" if name else str(key)).items()}
