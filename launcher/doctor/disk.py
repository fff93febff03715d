"""Checks of a disk for `stillhouse doctor`: room, kind, and how fast it syncs, writes and reads."""

import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from data_shards.corpus import Corpus
from launcher.doctor.findings import Finding, bad, good, warning
from launcher.text import counted, size

SPEED_BYTES = 64 << 20
SLOW_BYTES_PER_SECOND = 50e6
SLOW_SYNC_SECONDS = 0.1


def run_storage(folder: Path) -> Iterator[Finding]:
    """Room, fsync and speed of the disk of a run folder."""
    place = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
    subject = f"disk of {folder}"
    kind = file_system(place)
    try:
        scratch = tempfile.TemporaryDirectory(dir=place, prefix=".stillhouse-doctor-")
    except OSError as error:
        yield bad(subject, f"{place} cannot be written: {error.strerror}", "choose another run.folder, or change its permissions")
        return
    with scratch as name:
        inside = Path(name)
        text = f"{size(shutil.disk_usage(place).free)} free, {kind}"
        if kind in ("tmpfs", "ramfs", "overlay"):
            yield warning(subject, text, "what is there may be gone when the machine or container is: keep runs on a real disk")
        else:
            yield good(subject, text)
        yield _syncs(inside)
        yield from _speed(inside)


def data_storage(shards: str) -> Iterator[Finding]:
    """A shard folder can be read, and its reading speed."""
    corpus = Corpus.open(shards)
    location, manifest = corpus.location, corpus.manifest
    entries = manifest.entries("train")
    text = f"{shards}: {counted(len(entries), 'train shard')}, {counted(manifest.tokens('train'), 'token')}"
    if location.is_remote or not entries:
        yield good("data", text)
        return
    path = Path(location.where(entries[0].name))
    missing = [entry.name for entry in entries if not Path(location.where(entry.name)).is_file()]
    if missing:
        yield bad("data", f"{text}; {len(missing)} missing, {missing[0]} first", "bring them back, or build the shards again")
        return
    read, seconds = _read(path, SPEED_BYTES)
    speed = f"; read at {read / max(seconds, 1e-9) / 1e6:,.0f} MB/s" if read >= SPEED_BYTES // 8 else ""
    yield good("data", f"{text}{speed}, {file_system(path)}")


def file_system(place: Path) -> str:
    """The type of the file system that holds a place, by the longest mount point above it."""
    mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text(encoding="utf-8", errors="replace").splitlines()]
    here = os.path.realpath(place)
    above = [(where, kind) for where, kind in mounts if here == where or here.startswith(where.rstrip("/") + "/")]
    return max(above, key=lambda mount: len(mount[0]), default=("", "unknown"))[1]


def _syncs(folder: Path) -> Finding:
    took = []
    with open(folder / "synced", "wb", buffering=0) as file:
        for _ in range(8):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            took.append(time.perf_counter() - began)
    middle = statistics.median(took)
    text = f"{1e3 * middle:.1f} ms"
    return (
        good("fsync", text)
        if middle < SLOW_SYNC_SECONDS
        else warning("fsync", text, "raise checkpoint.every_updates, or use a nearer disk")
    )


def _speed(folder: Path) -> Iterator[Finding]:
    path, block = folder / "speed", os.urandom(1 << 20)
    if shutil.disk_usage(folder).free < 2 * SPEED_BYTES:
        yield bad("disk speed", "not measured: less than 128 MB free", "free some space")
        return
    began = time.perf_counter()
    with open(path, "wb") as file:
        for _ in range(SPEED_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
    written = SPEED_BYTES / (time.perf_counter() - began)
    read, seconds = _read(path, SPEED_BYTES)
    text = f"write and sync {written / 1e6:,.0f} MB/s, read {read / max(seconds, 1e-9) / 1e6:,.0f} MB/s"
    slow = written < SLOW_BYTES_PER_SECOND
    yield warning("disk speed", text, "set checkpoint.asynchronous=true, or use a faster disk") if slow else good("disk speed", text)


def _read(path: Path, most: int) -> tuple[int, float]:
    """(bytes, seconds) of reading a file's beginning, from the disk where the system lets its cache be dropped."""
    with open(path, "rb") as file:
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        began, count = time.perf_counter(), 0
        while count < most and (part := file.read(1 << 20)):
            count += len(part)
        return count, time.perf_counter() - began
