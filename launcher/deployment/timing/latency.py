"""`stillhouse latency MODEL…`: time of one batch in torch and in ONNX Runtime, measured in turns, with the machine that it is true for.

Inputs have no padding, so every token is work. The verdict on a target is refused where other processes had the core.
"""

import argparse
import json
import os
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kd.export.extra import onnx_module
from kd.export.runtime import AnySession, Session, TorchSession
from launcher.deployment.folder import MODEL, is_exported, read_exported
from launcher.deployment.machine import processor
from launcher.deployment.models import open_model
from launcher.deployment.speed import Timing, input_arrays, measure
from launcher.errors import LaunchError
from launcher.process.standard_streams import say
from launcher.reporting.console import PipeSafeConsole
from launcher.tables import Column, print_table
from stillhouse.files import write_atomically

MOST_WALL_PER_CPU = 1.2
RESAMPLES = 200


class Candidate:
    """A model in one form. A session is made anew for each number of threads."""

    def __init__(self, model: str, form: str, vocabulary: int, max_tokens: int) -> None:
        self.model, self.form, self.vocabulary, self.max_tokens = model, form, vocabulary, max_tokens

    def session(self, threads: int) -> AnySession:
        """The model, ready to run."""
        if self.form.startswith("onnx"):
            return Session(Path(self.model) / MODEL, threads)
        return TorchSession(open_model(self.model, torch.bfloat16 if self.form == "torch bf16" else torch.float32).exported)


def run(arguments: argparse.Namespace) -> int:
    """Measure every model at every setting, print a table, and answer the target."""
    onnx_module("onnxruntime")
    cores = os.cpu_count() or 1
    if max(arguments.threads) > cores:
        raise LaunchError(f"--threads {max(arguments.threads)}: expected at most {cores}, the cores of this machine; use fewer")
    candidates = [one for model in arguments.models for one in _candidates(model)]
    for one in candidates:
        if max(arguments.length) > one.max_tokens:
            raise LaunchError(
                f"--length {max(arguments.length)}: expected at most {one.max_tokens}, the positions of {one.model}; use shorter inputs"
            )
    rows = [row for threads in arguments.threads for row in _measured(candidates, threads, arguments)]
    _show(rows)
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "onnxruntime")}
    say(f"{processor()}; {', '.join(f'{name} {version}' for name, version in versions.items())}")
    verdict = None if arguments.target_ms is None else _verdict(rows, arguments.target_ms)
    if verdict is not None:
        say(verdict)
    if arguments.json:
        content = {"processor": processor(), "versions": versions, "rows": rows, "target_ms": arguments.target_ms, "verdict": verdict}
        write_atomically(Path(arguments.json), json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return 0


def _candidates(model: str) -> list[Candidate]:
    if is_exported(model):
        record = read_exported(model).record
        if record["model_format"] == "onnx":
            precision = record["precision"]
            vocabulary = int(record["vocabulary"])
            return [Candidate(model, f"onnx {precision}", vocabulary, int(record["max_tokens"]))]
    encoder = open_model(model).encoder
    return [Candidate(model, form, encoder.vocabulary, encoder.max_positions) for form in ("torch fp32", "torch bf16")]


def _measured(candidates: list[Candidate], threads: int, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """The rows of one number of threads. Sessions run in turns, so that a change of the machine's speed affects all alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        sessions = [one.session(threads) for one in candidates]
        rows = []
        for batch in arguments.batch:
            for length in arguments.length:
                inputs = [input_arrays(session, batch, length, one.vocabulary) for session, one in zip(sessions, candidates, strict=True)]
                timings = measure(sessions, inputs, arguments.repetitions)
                shape = {"batch": batch, "length": length, "threads": threads}
                rows += [_row(one, timing, shape) for one, timing in zip(candidates, timings, strict=True)]
        return rows
    finally:
        torch.set_num_threads(before)


def _row(candidate: Candidate, timing: Timing, shape: dict[str, int]) -> dict[str, Any]:
    """Milliseconds of wall time; interval: 95 % of the median, by bootstrap over the repetitions."""
    milliseconds = 1000 * timing.wall
    draws = np.random.default_rng(0).integers(0, len(milliseconds), (RESAMPLES, len(milliseconds)))
    low, high = np.percentile(np.median(milliseconds[draws], axis=1), (2.5, 97.5))
    p50, p95, p99 = (float(value) for value in np.percentile(milliseconds, (50, 95, 99)))
    trusted = timing.wall_per_cpu <= MOST_WALL_PER_CPU  # several threads can only hide that a core was taken
    return {
        "model": candidate.model,
        "form": candidate.form,
        **shape,
        "p50_ms": p50,
        "p50_interval_ms": [float(low), float(high)],
        "p95_ms": p95,
        "p99_ms": p99,
        "cpu_p50_ms": 1000 * float(np.median(timing.cpu)),
        "rows_per_second": 1000 * shape["batch"] / p50,
        "wall_per_cpu": timing.wall_per_cpu,
        "trusted": trusted,
        "repetitions": len(milliseconds),
    }


def _verdict(rows: list[dict[str, Any]], target: float) -> str:
    """The models whose 95th percentile meets the target at every setting, or the reason why nothing can be said."""
    if not all(row["trusted"] for row in rows):
        worst = max(row["wall_per_cpu"] for row in rows)
        return (
            f"target {target:g} ms: no verdict: wall time was up to {worst:.2f} times CPU time, so other processes had the core; "
            "stop them and measure again"
        )
    slowest: dict[tuple[str, str], float] = {}
    for row in rows:
        key = (row["model"], row["form"])
        slowest[key] = max(slowest.get(key, 0.0), row["p95_ms"])
    met = sorted((value, key) for key, value in slowest.items() if value <= target)
    if not met:
        value, key = min((value, key) for key, value in slowest.items())
        return f"target {target:g} ms at p95: no model meets it; the nearest is {key[0]} ({key[1]}) with {value:.2f} ms"
    names = ", ".join(f"{key[0]} ({key[1]}, {value:.2f} ms)" for value, key in met)
    return f"target {target:g} ms at p95 is met by: {names}; the fastest is {met[0][1][0]} ({met[0][1][1]})"


def _show(rows: list[dict[str, Any]]) -> None:
    columns = [
        Column("form", [row["form"] for row in rows], justify="left"),
        Column("batch", [str(row["batch"]) for row in rows]),
        Column("tokens", [str(row["length"]) for row in rows]),
        Column("threads", [str(row["threads"]) for row in rows]),
        Column("p50", [f"{row['p50_ms']:.2f}" for row in rows], "median wall time of a batch, ms; p95 and p99 alike"),
        Column("p95", [f"{row['p95_ms']:.2f}" for row in rows]),
        Column("p99", [f"{row['p99_ms']:.2f}" for row in rows]),
        Column("CPU", [f"{row['cpu_p50_ms']:.2f}" for row in rows], "median CPU time of all threads, ms"),
        Column("rows/s", [f"{row['rows_per_second']:.0f}" for row in rows]),
        Column("wall/CPU", [f"{row['wall_per_cpu']:.2f}" for row in rows], "above 1.2 with one thread: other processes had the core"),
    ]
    print_table(PipeSafeConsole(), Column("model", [row["model"] for row in rows]), columns)
