"""The machine of a benchmark, and whether it was quiet."""

from importlib import metadata
from typing import Any

import torch

from kd.distributed import process_group
from launcher.process.machine import processor

PACKAGES = ("stillhouse", "torch", "deepspeed", "transformers")
BUSY = 1.2
"""Wall time over CPU time of one thread, above which another process had the core."""


def machine() -> dict[str, Any]:
    """The machine of the figures."""
    device = process_group.device()
    name = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    versions = {package: metadata.version(package) for package in PACKAGES}
    return {"processor": name, "threads": torch.get_num_threads(), "packages": versions}


def said(facts: dict[str, Any]) -> str:
    """The machine in one line."""
    threads = f"{facts['threads']} thread{'s' if facts['threads'] > 1 else ''}"
    versions = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    return f"{facts['processor']}; {threads}; {versions}"


def busy(case: str, wall_per_cpu: float) -> str:
    """The line below the table of a case that is unreliable."""
    return f"{case}: unreliable, other processes had the core (wall time {wall_per_cpu:.2f} of CPU time, limit {BUSY})"
