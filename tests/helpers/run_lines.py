"""What the tests of whole runs share: reading metrics.jsonl, a free port."""

import json
import socket
from pathlib import Path
from typing import Any

from launcher.reporting.catalogue import TIME_PARTS

CLOCK = (
    *(
        "tokens_per_second",
        "tokens_per_second_per_rank",
        "tflops",
        "utilisation",
        "cka_seconds",
        "seconds_left",
        "data_wait_share",
        "memory_gb",
        "memory_planned_gb",
        "time",
        "elapsed_seconds",
    ),
    *(f"time/{part}" for part in TIME_PARTS),
    *("restarts", "stragglers"),
)


def lines(folder: Path, kind: str) -> list[dict[str, Any]]:
    """The lines of one kind in a run's metrics.jsonl; a last line still being written is left out."""
    path = folder / "metrics.jsonl"
    whole = path.read_text().split("\n")[:-1] if path.exists() else []
    return [line for line in map(json.loads, whole) if line["kind"] == kind]


def train_lines(folder: Path) -> list[dict[str, Any]]:
    return lines(folder, "train")


def facts(folder: Path, kind: str = "train") -> list[dict[str, Any]]:
    """The lines without what a clock or the machine decides."""
    return [{key: value for key, value in line.items() if key not in CLOCK} for line in lines(folder, kind)]


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
