"""A run's folder: everything about it in one place, and one owner at a time.

config.yaml (resolved), environment.json, metrics.jsonl (the truth), log.txt, checkpoints/, student/, report.json, wandb/, lock.
Opening a folder that already holds a run continues it, if the configuration is the same where it matters.
"""

import json
import os
import platform
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from launcher import config as configuration
from launcher.config import RunConfig
from launcher.errors import LaunchError

FREE_TO_CHANGE = (
    "run.name",
    "report",
    "checkpoint",
    "evaluate",
    "data.cache_folder",
    "teacher.mode",
    "train.micro_batch",
    "train.zero_stage",
    "train.activation_checkpointing",
    "train.chunk_tokens",
    "train.loader_workers",
    "train.prefetch_updates",
    "train.max_bad_updates",
    "train.timeout_seconds",
)
"""Settings that cannot change what is learned, beyond rounding: a run may be continued with others."""
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
        with _owned(run.folder / "lock"):
            run._settle(config)
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
            if changed:
                lines = "".join(f"\n  {line}" for line in changed)
                raise LaunchError(
                    f"run.folder: expected the configuration that {self.folder} began with, got another; "
                    f"use another folder, or remove this one:{lines}"
                )
        write_atomically(path, configuration.dump(config))
        write_atomically(self.folder / "environment.json", json.dumps(environment(), indent=1) + "\n")


def environment() -> dict[str, Any]:
    """What the run runs on: versions, host, command; no environment variable, so no secret."""
    return {
        "command": " ".join(sys.argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": socket.gethostname(),
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "commit": _commit(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def write_atomically(path: Path, text: str) -> None:
    """The file is the old one or the new one, never half of either."""
    temporary = path.with_name(f".{path.name}.writing")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextmanager
def _owned(lock: Path) -> Iterator[None]:
    """Hold the folder's lock: host, pid and start of the owner. A dead owner's lock is taken over."""
    mine = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "job": os.environ.get("SLURM_JOB_ID"),
    }
    for _ in range(3):
        try:
            descriptor = os.open(lock, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            break
        except FileExistsError:
            owner = _owner(lock)
            if owner is not None and _lives(owner):
                job = f", job {owner['job']}" if owner.get("job") else ""
                raise LaunchError(
                    f"run.folder: expected {lock.parent} to be free, got a run that is still going (host {owner['host']}, "
                    f"pid {owner['pid']}{job}); wait for it, or use another folder"
                ) from None
            lock.unlink(missing_ok=True)
    else:
        raise LaunchError(f"{lock}: expected to become its owner, got another one each time; start again")
    with os.fdopen(descriptor, "w") as file:
        json.dump(mine, file)
    try:
        yield
    finally:
        if _owner(lock) == mine:
            lock.unlink(missing_ok=True)


def _owner(lock: Path) -> dict[str, Any] | None:
    """Who the lock names; None for one that was cut off while being written."""
    for _ in range(5):
        try:
            return dict(json.loads(lock.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except ValueError:
            time.sleep(0.1)
    return None


def _lives(owner: dict[str, Any]) -> bool:
    """Whether the owner may still be running: surely not if it was on this host and its process is gone or another."""
    if owner.get("host") != socket.gethostname():
        return owner.get("job") is None or owner.get("job") != os.environ.get("SLURM_JOB_ID")
    try:
        return abs(psutil.Process(int(owner["pid"])).create_time() - float(owner["started"])) < 1.0
    except (psutil.NoSuchProcess, KeyError, ValueError):
        return False


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    try:
        here = Path(__file__).parent
        return subprocess.run(
            ["git", "-C", here, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=5, check=True
        ).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
