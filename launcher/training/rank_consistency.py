"""A check that all ranks have the same code, packages, configuration, corpus and models, before anything is built.

Ranks that differ would train on, with wrong losses and no word; here they leave with the difference.
"""

import hashlib
import json
import platform
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from kd.checkpoint.on_disk import Checkpoint
from kd.distributed import process_group
from kd.teacher.hidden_state_cache import HEADER
from launcher.config.load import flat_values, public_values
from launcher.config.run_config import AnyRunConfig
from launcher.errors import SharedError
from launcher.run_folder.folder import PACKAGES, version
from stillhouse.files import ROOT

ROOMS = ("kd", "data_shards", "launcher", "stillhouse")
HEAD_BYTES = 1 << 20  # of a model file: its header and first weights, beside its size
MAX_LINES = 12


def agree(config: AnyRunConfig, contents: Mapping[str, str]) -> None:
    """Raise, on every rank alike, unless each has what rank 0 has. contents: as in launcher.training.parts.TrainingData. Collective."""
    if process_group.world_size() == 1:
        return
    mine = json.dumps(identity(config, contents), sort_keys=True)
    digests = process_group.texts(hashlib.sha256(mine.encode()).hexdigest()[:32])
    if len(set(digests)) == 1:
        return
    hosts = process_group.texts(socket.gethostname())
    everyone = [json.loads(text) for text in process_group.texts(mine)]
    lines = []
    for rank, theirs in enumerate(everyone):
        for name in sorted({*everyone[0], *theirs}):
            first, other = everyone[0].get(name, "absent"), theirs.get(name, "absent")
            if first != other:
                lines.append(f"\n  rank {rank} on {hosts[rank]}: {name}: {first} -> {other}")
    more = f"\n  and {len(lines) - MAX_LINES} more" if len(lines) > MAX_LINES else ""
    raise SharedError(
        f"ranks: expected each to have what rank 0 on {hosts[0]} has, got differences; make the hosts equal:"
        + "".join(lines[:MAX_LINES])
        + more
    )


def identity(config: AnyRunConfig, contents: Mapping[str, str]) -> dict[str, str]:
    """The facts that decide the result, by name, as words or digests short enough to show."""
    facts = {name: version(name) or "none" for name in PACKAGES}
    facts |= {"python": platform.python_version(), "code": _digest_of_code()}
    facts |= {key: json.dumps(value) for key, value in flat_values(public_values(config)).items()}
    facts |= {f"content of {name}": digest for name, digest in contents.items()}
    facts |= {f"content of {name}": digest for name, digest in teachers(config).items()}
    if Path(config.student.init).is_dir():
        facts["content of student.init"] = _digest_of_model(Path(config.student.init))
    for name, member in config.members.items():
        if member.cache is not None and (header := Path(member.cache) / HEADER).is_file():
            facts[f"content of {name}.cache"] = hashlib.sha256(header.read_bytes()).hexdigest()[:12]
    return facts


def teachers(config: AnyRunConfig) -> dict[str, str]:
    """A digest of each teacher that is a folder, by name: a checkpoint keeps it."""
    places = {f"teacher {name}".rstrip(): Path(member.model) for name, member in config.members.items()}
    return {name: _digest_of_model(place) for name, place in places.items() if place.is_dir()}


def check_teachers(config: AnyRunConfig, saved: Checkpoint) -> None:
    """Raise, on every rank alike, where a teacher's folder holds another model now than when the checkpoint was made."""
    before: dict[str, str] = saved.progress.facts.get("teachers", {})
    for name, digest in teachers(config).items():
        older = name.replace("teacher teacher.", "teacher teachers.models.")  # the name of a member in earlier versions
        if before.get(name, before.get(older, digest)) != digest:
            where = name.removeprefix("teacher ")
            raise SharedError(
                f"{where}: expected the model that the run began with, got other files in its folder; bring them back, or begin anew"
            )


def _digest_of_code() -> str:
    """Of every module of the three rooms."""
    files = sorted(file for room in ROOMS for file in (ROOT / room).rglob("*.py"))
    return _digest(hashlib.sha256(file.read_bytes()).hexdigest() + str(file.relative_to(ROOT)) for file in files)


def _digest_of_model(folder: Path) -> str:
    """Of a model folder: small files whole, weights by size and beginning."""
    parts = []
    for file in sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors", ".bin")):
        with file.open("rb") as opened:
            parts.append(f"{file.name} {file.stat().st_size} {hashlib.sha256(opened.read(HEAD_BYTES)).hexdigest()}")
    return _digest(parts)


def _digest(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]
