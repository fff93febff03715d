"""A run's folder: everything about it in one place, and one owner at a time.

config.yaml (resolved), environment.json, metrics.jsonl (the truth), curves.png, report.html, log.txt, checkpoints/, student/, report.json,
wandb/, lock; samples.jsonl; layer_maps.txt where `layer_map: cka` was resolved;
layer_similarity.txt where it is measured during the run.
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
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from launcher.config.free_to_change import FREE_TO_CHANGE
from launcher.config.load import differences, dump_config, parse_config
from launcher.config.run_config import AnyRunConfig
from launcher.errors import LaunchError
from launcher.redaction import redacted
from launcher.run_folder.lock import Ownership, owned
from stillhouse.files import ROOT, write_atomically

FILES = ("config.yaml", "environment.json", "metrics.jsonl", "log.txt", "report.json", "wandb_id", "lock", ".opening", "checkpoints/latest")
MARKS = ("environment.json", "wandb_id", "checkpoints/latest")
"""Files that mark a folder as that of a run: each run has the first one before any other file."""
REPLACED = ("config.yaml", "student", "metrics.jsonl", "report.json", "report.html", "curves.png", "samples.jsonl")
"""Files and a folder that a run writes anew, whoever wrote them before."""
SAMPLES = "samples.jsonl"
"""Some predictions with their texts."""
PACKAGES = ("stillhouse", "torch", "deepspeed", "transformers", "webdataset", "datasets", "tokenizers", "safetensors", "numpy", "wandb")


class RunFolder:
    """The folder of one run. Only the rank that writes creates and locks it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.configuration = folder / "config.yaml"
        self.checkpoints = folder / "checkpoints"
        self.metrics = folder / "metrics.jsonl"
        self.student = folder / "student"
        self.report = folder / "report.json"
        self.layer_maps = folder / "layer_maps.txt"
        self.layer_similarity = folder / "layer_similarity.txt"
        self.ownership: Ownership | None = None
        """On the rank that writes: what says whether the folder is still this run's."""

    @classmethod
    @contextmanager
    def open(cls, config: AnyRunConfig) -> Iterator["RunFolder"]:
        """Create or continue the folder and own it meanwhile.

        Overwrites nothing that is there: see `record`. Raises LaunchError when it cannot be written, belongs to a live run, holds a run of
        another configuration, or files that no run wrote and this one would replace.
        """
        run = cls(Path(config.run.folder))
        try:
            run._check_kinds()
            run._check_writers(dump_config(config))
            run.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LaunchError(f"run.folder: expected a folder that can be written, got {error}; choose another") from None
        if not os.access(run.folder, os.W_OK):
            raise LaunchError(f"run.folder: expected permission to write {run.folder}, got none; choose another, or change its mode")
        with owned(run.folder) as run.ownership:
            try:
                if run.configuration.exists():
                    run._compare(config)
                else:
                    run.record(config)
            except OSError as error:
                raise LaunchError(f"{error.filename}: expected to read it, got {error.strerror}; see its mode and its disk") from None
            yield run

    def record(self, config: AnyRunConfig, data: Mapping[str, Any] | None = None, **measured: Mapping[str, Any]) -> None:
        """Write the configuration and the environment of this start: once it is known that it can go on. Raises LaunchError.

        data: counts and digests of the data, from its manifest. measured: what this start found out about the machine, by name.
        """
        found = {name: dict(facts) for name, facts in measured.items()}
        facts = environment() | found | ({"data": redacted(dict(data))} if data else {})
        try:
            write_atomically(self.folder / "environment.json", json.dumps(facts, indent=1) + "\n")  # first: it marks the folder as a run's
            write_atomically(self.configuration, dump_config(config))
        except OSError as error:
            raise LaunchError(f"run.folder: expected to write to {self.folder}, got {error.strerror}; free space there") from None

    @property
    def wandb_id(self) -> str:
        """The run's W&B id: made once, so that a continued run continues its curve. The agent of a W&B sweep chooses it."""
        path = self.folder / "wandb_id"
        if not path.exists():
            chosen = os.environ.get("WANDB_RUN_ID") if os.environ.get("WANDB_SWEEP_ID") else None
            write_atomically(path, (chosen or secrets.token_hex(4)) + "\n")
        return _text(path).strip()

    def origin(self, config: AnyRunConfig, contents: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Code, data and parent runs of this run, for W&B's config.

        contents: name of a setting -> digest of the data that it names; None: as environment.json says.
        parents: setting -> run that wrote the model which it names.
        """
        with suppress(OSError, ValueError):
            facts = json.loads((self.folder / "environment.json").read_text(encoding="utf-8"))
            if contents is None:
                name = "data.shards" if hasattr(config.data, "shards") else "data"
                contents = {name: facts["data"]["fingerprint"][:12]} if "data" in facts else {}
            code = {"commit": facts["commit"], "version": facts["packages"]["stillhouse"]}
            models = {f"{name}.model": member.model for name, member in config.members.items()} | {"student.init": config.student.init}
            runs = {setting: Path(model).resolve().parent for setting, model in models.items()}
            found = {setting: run for setting, run in runs.items() if Path(models[setting]).is_dir() and (run / "wandb_id").is_file()}
            parents = {setting: {"name": run.name, "wandb_id": _text(run / "wandb_id").strip()} for setting, run in found.items()}
            return {"origin": {"code": code, "contents": dict(contents), "parents": parents}}
        return {}

    def _check_kinds(self) -> None:
        """LaunchError if a file of a run is no file, or a folder no folder. Reading a pipe would wait without limit."""
        for name in FILES:
            path = self.folder / name
            if path.exists() and not path.is_file():
                raise LaunchError(f"{path}: expected a file, got {'a folder' if path.is_dir() else 'a pipe or a device'}; move it away")
        for path in (self.checkpoints, self.student):
            if path.exists() and not path.is_dir():
                raise LaunchError(f"{path}: expected a folder, got a file; move it away")

    def _check_writers(self, configuration: str) -> None:
        """LaunchError if the folder is no run's and holds what a run would replace, such as the user's own config.yaml.

        configuration: the text of this run's config.yaml. A copy of it may be there.
        """
        held = [path for path in (self.folder / name for name in REPLACED) if path.exists()]
        if held == [self.configuration] and self.configuration.read_bytes() == configuration.encode():
            return
        if held and not any((self.folder / name).exists() for name in MARKS):
            raise LaunchError(
                f"{held[0]}: expected {'a folder' if held[0].is_dir() else 'a file'} of a run, got one that no run wrote; "
                f"rename it, or choose another run.folder"
            )

    def expect(self, before: AnyRunConfig, config: AnyRunConfig) -> None:
        """LaunchError where the run that is here began with another configuration."""
        changed = differences(before, config, ignoring=FREE_TO_CHANGE)
        if changed:
            lines = "".join(f"\n  {line}" for line in changed)
            raise LaunchError(
                f"run.folder: expected the configuration that {self.folder} began with, got another; "
                f"use another folder, or remove this one:{lines}"
            )

    def _compare(self, config: AnyRunConfig) -> None:
        before = parse_config(_text(self.configuration), str(self.configuration))
        if self._learned():
            self.expect(before, config)

    def _learned(self) -> bool:
        """True if there is anything that another configuration would lose."""
        lines = self.metrics.read_bytes() if self.metrics.exists() else b""
        return any(self.checkpoints.iterdir()) or self.student.exists() or b'"kind": "train"' in lines


def environment() -> dict[str, Any]:
    """The environment of the run: versions, host, command. No environment variable is included, so no secret."""
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
        "packages": {name: version(name) for name in PACKAGES},
    }


def tell_progress(updates: int) -> None:
    """Leave the number of updates that the newest checkpoint has where a batch script asks for it, to know whether starting again helps."""
    place = os.environ.get("STILLHOUSE_PROGRESS")
    if place:
        with suppress(OSError):
            write_atomically(Path(place), f"{updates}\n")


def _text(path: Path) -> str:
    """The text of a file of the run. Raises LaunchError if it is not text."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise LaunchError(
            f"{path}: expected UTF-8, got {error.reason} at byte {error.start}; bring it back, or use another folder"
        ) from None


def version(package: str) -> str | None:
    """The version of an installed package; None where there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """The commit of a clone, with -dirty for changes; None for an installed package."""
    if not (ROOT / ".git").exists():
        return None
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None
