"""`stillhouse doctor`: what a run would meet on this machine, tried out; `stillhouse doctor RUN`: how a run is."""

import argparse
import socket
import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from rich.console import Console

from launcher.doctor import disk, machine, services
from launcher.doctor.findings import Finding, report, seen
from launcher.process import rank_environment
from launcher.redaction import redacted


def run(arguments: argparse.Namespace) -> int:
    """Look, print, and leave with 1 if anything is bad."""
    if arguments.clear_locks:
        print("stillhouse: --clear-locks: has no effect, because nothing is compiled any more; leave it out", file=sys.stderr)
    rank = rank_environment.rank_variables().get("RANK", "0")
    with Console(stderr=True).status("looking around") as status:
        findings: list[Finding] = []
        for subject, look in checks(arguments).items():
            status.update(f"looking at {subject}")
            findings += seen(subject, look)
    if rank == "0":
        return report(findings, arguments.json)
    found = [finding for finding in findings if finding.verdict == "bad"]  # rank 0 speaks for all, but for what is bad on another host
    for finding in found:
        told = redacted(f"rank {rank} on {socket.gethostname()}: {finding.subject}: {finding.found}; {finding.advice}")
        print(told, file=sys.stderr, flush=True)
    return int(bool(found))


def checks(arguments: argparse.Namespace) -> dict[str, Callable[[], Iterable[Finding]]]:
    """Everything there is to look at, in order."""
    looks: dict[str, Callable[[], Iterable[Finding]]] = {
        "software": machine.software,
        "processor": machine.processor,
        "memory": machine.memory,
        "GPUs": machine.accelerators,
        "ranks": services.ranks,
        "names": services.names,
        "disk": partial(disk.run_storage, Path(arguments.folder)),
        "Slurm": services.slurm,
        "W&B": services.wandb,
        "model hub": services.hub,
    }
    if arguments.shards is not None:
        looks["data"] = partial(disk.data_storage, arguments.shards)
    return looks
