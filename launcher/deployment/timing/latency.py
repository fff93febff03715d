"""`stillhouse latency MODEL…`: time of one batch in torch and in ONNX Runtime, measured in turns, with the machine that it is true for.

Inputs have no padding, so every token is work. The verdict on a target is refused where other processes had the core.
"""

import argparse
import json
import os
import platform
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from launcher.deployment.speed import input_arrays, measure
from launcher.deployment.timing.candidates import Candidate, candidates_of
from launcher.deployment.timing.figures import Row, row_of, verdict_of
from launcher.deployment.timing.plot import picture
from launcher.deployment.timing.table import show
from launcher.errors import LaunchError
from launcher.process.machine import processor
from launcher.process.standard_streams import say
from launcher.reporting.console import PipeSafeConsole
from launcher.text import counted
from stillhouse.files import write_atomically

FORMAT = "stillhouse latency 1"
PACKAGES = ("torch", "transformers", "onnxruntime", "numpy")
PAUSE_SECONDS = 0.01
"""Before each run with several threads. The threads of the run before spin for milliseconds, and would take a core from this one."""


def run(arguments: argparse.Namespace) -> int:
    """Measure every model at every setting, print a table, and answer the target."""
    cores = os.cpu_count() or 1
    if max(arguments.threads) > cores:
        raise LaunchError(f"--threads {max(arguments.threads)}: expected at most {cores}, the cores of this machine; use fewer")
    for option in ("json", "plot"):
        _check_writable(f"--{option}", getattr(arguments, option))
    candidates = candidates_of(arguments.models)
    for one in candidates:
        if max(arguments.length) > one.max_tokens:
            raise LaunchError(
                f"--length {max(arguments.length)}: expected at most {one.max_tokens}, the positions of {one.model}; use shorter inputs"
            )
    settings = len(arguments.threads) * len(arguments.batch) * len(arguments.length)
    say(f"{counted(len(candidates), 'model')} at {counted(settings, 'setting')}, {arguments.repetitions} times each …", sys.stderr)
    with _bar(settings * arguments.repetitions) as advance:
        rows = [row for threads in arguments.threads for row in _measured(candidates, threads, arguments, advance)]
    show(rows, candidates, PipeSafeConsole())
    versions = {name: version for name in PACKAGES if (version := _version(name))} | {"python": platform.python_version()}
    machine = f"{processor()}; {', '.join(f'{name} {version}' for name, version in versions.items())}"
    say(machine)
    verdict = None if arguments.target_ms is None else verdict_of(rows, candidates, arguments.target_ms)
    if verdict is not None:
        say(verdict.text)
    if arguments.plot:
        worst = max(row["wall_per_cpu"] for row in rows)
        caption = machine if all(row["trusted"] for row in rows) else f"{machine}\nother processes had the core: wall/CPU up to {worst:.2f}"
        write_atomically(Path(arguments.plot), picture(rows, candidates, arguments.target_ms, caption))
    if arguments.json:
        content: dict[str, Any] = {"format": FORMAT, "processor": processor(), "versions": versions}
        content |= {"models": [one.record for one in candidates], "rows": rows, "target_ms": arguments.target_ms}
        content |= {"verdict": None, "met": None, "best": None}
        if verdict is not None:
            answer = asdict(verdict)
            content |= {"verdict": answer.pop("text"), **answer}
        write_atomically(Path(arguments.json), json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return 0


def _check_writable(option: str, path: str | None) -> None:
    """Raise LaunchError for a file in a folder that is not there: before minutes of measuring, not after."""
    if path is not None and (not Path(path).parent.is_dir() or Path(path).is_dir()):
        got = "a folder" if Path(path).is_dir() else "no such folder"
        raise LaunchError(f"{option} {path}: expected the name of a file in a folder that exists, got {got}; correct it")


def _measured(candidates: list[Candidate], threads: int, arguments: argparse.Namespace, advance: Callable[[], None]) -> list[Row]:
    """The rows of one number of threads. Sessions run in turns, so that a change of the machine's speed affects all alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sessions = [one.session(threads) for one in candidates]
        rows = []
        for batch in arguments.batch:
            for length in arguments.length:
                inputs = [input_arrays(session, batch, length, one.vocabulary) for session, one in zip(sessions, candidates, strict=True)]
                timings = measure(sessions, inputs, arguments.repetitions, PAUSE_SECONDS if threads > 1 else 0.0, advance)
                shape = {"batch": batch, "length": length, "threads": threads}
                rows += [row_of(one, timing, shape) for one, timing in zip(candidates, timings, strict=True)]
        return rows
    finally:
        torch.set_num_threads(before)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


@contextmanager
def _bar(repetitions: int) -> Iterator[Callable[[], None]]:
    """A bar over the repetitions of all settings on stderr; nothing where it is no terminal."""
    console = Console(stderr=True)
    columns = (TextColumn("measuring"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, auto_refresh=False, disable=not console.is_terminal) as bar:
        task = bar.add_task("measuring", total=repetitions)

        def advance() -> None:
            bar.update(task, advance=1, refresh=True)  # between two measurements: a thread that draws would take time from them

        yield advance
