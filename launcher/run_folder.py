"""A run's folder: everything about it in one place, and one owner at a time.

config.yaml (resolved), environment.json, metrics.jsonl (the truth), log.txt, checkpoints/, student/, report.json, wandb/, lock.
Opening a folder that already holds a run continues it, if the configuration is the same where it matters. Nothing here knows a tensor.
"""

import json
import os
import platform
import secrets
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from launcher import config as configuration
from launcher.config import RunConfig
from launcher.credentials import redacted
from launcher.errors import LaunchError

FREE_TO_CHANGE = (
    "run",  # a folder that was moved is the same run
    "report",
    "checkpoint",
    "evaluate",
    "data.shards",  # also where they lie: the cursor has their fingerprint, and refuses others
    "data.cache_folder",
    "data.on_corrupt",  # nothing, as long as no shard is damaged
    "data.max_skipped_shards",
    "teacher.mode",
    "teachers.models.mode",
    "train.micro_batch",
    "train.zero_stage",
    "train.attention",
    "train.activation_checkpointing",
    "train.chunk_tokens",
    "train.loader_workers",
    "train.prefetch_updates",
    "train.max_bad_updates",
    "train.spike_factor",  # nothing, as long as all goes well
    "train.roll_backs",
    "train.timeout_seconds",
)
"""Settings that cannot change what is learned, beyond rounding: a run may be continued with others."""
OPENING_SECONDS = 10.0
PACKAGES = ("stillhouse", "torch", "deepspeed", "transformers", "webdataset", "datasets", "tokenizers", "safetensors", "numpy", "wandb")


class RunFolder:
    """The folder of one run. Only the rank that writes creates and locks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.checkpoints = folder / "checkpoints"
        self.metrics = folder / "metrics.jsonl"
        self.student = folder / "student"
        self.report = folder / "report.json"

    @classmethod
    @contextmanager
    def open(cls, config: RunConfig) -> Iterator["RunFolder"]:
        """Create or continue the folder and own it meanwhile.

        Raises LaunchError when it cannot be written, belongs to a live run, or holds a run of another configuration.
        """
        run = cls(Path(config.run.folder))
        try:
            run.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LaunchError(f"run.folder: expected a folder that can be written, got {error}; choose another") from None
        if not os.access(run.folder, os.W_OK):
            raise LaunchError(f"run.folder: expected permission to write {run.folder}, got none; choose another, or change its mode")
        with owned(run.folder):
            try:
                run._settle(config)
            except OSError as error:
                raise LaunchError(f"run.folder: expected to write to {run.folder}, got {error.strerror}; free space there") from None
            yield run

    @property
    def wandb_id(self) -> str:
        """The run's W&B id: made once, so that a continued run continues its curve."""
        path = self.folder / "wandb_id"
        if not path.exists():
            write_atomically(path, secrets.token_hex(4) + "\n")
        return path.read_text(encoding="utf-8").strip()

    def _settle(self, config: RunConfig) -> None:
        path = self.folder / "config.yaml"
        if path.exists():
            before = configuration.parse(path.read_text(encoding="utf-8"), str(path))
            changed = configuration.differences(before, config, ignoring=FREE_TO_CHANGE)
            if changed and self._learned():
                lines = "".join(f"\n  {line}" for line in changed)
                raise LaunchError(
                    f"run.folder: expected the configuration that {self.folder} began with, got another; "
                    f"use another folder, or remove this one:{lines}"
                )
        write_atomically(path, configuration.dump(config))
        write_atomically(self.folder / "environment.json", json.dumps(environment(), indent=1) + "\n")

    def _learned(self) -> bool:
        """Whether there is anything that another configuration would lose."""
        lines = self.metrics.read_bytes() if self.metrics.exists() else b""
        return any(self.checkpoints.iterdir()) or self.student.exists() or b'"kind": "train"' in lines


def environment() -> dict[str, Any]:
    """What the run runs on: versions, host, command; no environment variable, so no secret."""
    return {
        "command": redacted(shlex.join(sys.argv)),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "ranks": int(os.environ.get("WORLD_SIZE", "1")),
        "job": os.environ.get("SLURM_JOB_ID"),
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "commit": _commit(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def write_atomically(path: Path, text: str) -> None:
    """The file is the old one or the new one, never half of either."""
    temporary = path.with_name(f".{path.name}.writing")
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def in_use(folder: Path) -> bool:
    """Whether a live run owns the folder."""
    owner = _owner(folder / "lock")
    return owner is not None and _lives(owner)


@contextmanager
def owned(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: host, pid and start of the owner. A dead owner's lock is taken over."""
    lock = folder / "lock"
    mine = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "job": os.environ.get("SLURM_JOB_ID"),
    }
    try:
        with FileLock(folder / ".opening", timeout=OPENING_SECONDS):  # of two that find a dead owner, one at a time looks and takes over
            owner = _owner(lock)
            if owner is not None and _lives(owner):
                job = f", job {owner['job']}" if owner.get("job") else ""
                elsewhere = "" if owner.get("host") == mine["host"] else f" (if that one is surely gone: rm {lock})"
                raise LaunchError(
                    f"run.folder: expected {folder} to be free, got a run that is still going (host {owner.get('host')}, "
                    f"pid {owner.get('pid')}{job}); wait for it, or use another folder{elsewhere}"
                )
            write_atomically(lock, json.dumps(mine) + "\n")
    except Timeout:
        raise LaunchError(f"run.folder: expected to open {folder}, got another process that is opening it; try again") from None
    except OSError as error:
        raise LaunchError(f"run.folder: expected to write {lock}, got {error.strerror or error}; choose another") from None
    try:
        yield
    finally:
        if _owner(lock) == mine:
            lock.unlink(missing_ok=True)


def owner_of(run: RunFolder) -> str | None:
    """Who runs in a folder now, in words; None where nobody does."""
    owner = _owner(run.folder / "lock")
    if owner is None or not _lives(owner):
        return None
    return f"host {owner.get('host')}, pid {owner.get('pid')}" + (f", job {owner['job']}" if owner.get("job") else "")


def _owner(lock: Path) -> dict[str, Any] | None:
    """Who the lock names, if anybody."""
    try:
        owner = json.loads(lock.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def _lives(owner: dict[str, Any]) -> bool:
    """Whether the owner may still be running: surely not if it was on this host and its process is gone, or is another by now."""
    if owner.get("host") != socket.gethostname():
        return owner.get("job") is None or owner.get("job") != os.environ.get("SLURM_JOB_ID")  # a requeued job keeps its number
    try:
        process = psutil.Process(int(owner["pid"]))
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - float(owner["started"])) < 1.0
    except psutil.AccessDenied:
        return True
    except (psutil.Error, KeyError, TypeError, ValueError):
        return False


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of a clone, with -dirty for changes; None for an installed package."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
