"""The reasons not to ship an export: more loss, more bytes or more time than allowed, each with its figures and what to try next."""

import argparse
from typing import Any

from kd.export.runtime import Session
from launcher.deployment.conversion.graph import Converted
from launcher.deployment.conversion.quality import Quality
from launcher.deployment.models import DeployedModel
from launcher.deployment.speed import input_arrays, measure

SPEED_TOKENS, REPETITIONS = 128, 15


def speed_of(model: DeployedModel, made: Converted) -> dict[str, Any]:
    """CPU time of one row beside that of the fp32 graph, in turns."""
    tokens = min(SPEED_TOKENS, model.encoder.max_positions)
    arrays = input_arrays(made.session, 1, tokens, model.encoder.vocabulary)
    sessions = [made.fp32, made.session]
    for session in sessions:
        if isinstance(session, Session):
            session.arena = True  # as in use: without, a large vocabulary's memory would be most of the time
    fp32, exported = measure(sessions, [arrays, arrays], REPETITIONS)
    before, after = (float(sorted(timing.cpu)[REPETITIONS // 2]) for timing in (fp32, exported))
    figures = {"fp32_ms": 1000 * before, "exported_ms": 1000 * after, "share_of_fp32": after / max(before, 1e-9)}
    return {"batch": 1, "tokens": tokens, "threads": 1, "clock": "CPU time, median, fp32 and exported in turns", **figures}


def problems_of(made: Converted, quality: Quality | None, speed: dict[str, Any] | None, arguments: argparse.Namespace) -> list[str]:
    """One line for each reason not to ship the model."""
    lines, precision = [], arguments.precision
    if quality is None and precision != "fp32":
        lines.append(f"{precision}: expected --task-config or --shards to compare it with the original on, got neither; give one")
    if quality is not None and quality.drop > arguments.max_drop:
        interval = f"{quality.low:.2f} to {quality.high:.2f}"
        change = f"{quality.metric} {quality.original:.4f} to {quality.exported:.4f}"
        got = f"got {quality.drop:.2f} ({interval}; {change})"
        lines.append(f"quality: expected at most {arguments.max_drop:g} points lost, {got}; try {_gentler(precision, arguments.tables)}")
    if precision != "fp32" and made.bytes >= made.original_bytes:
        lines.append(f"size: expected fewer than {made.original_bytes:,} bytes, got {made.bytes:,}; keep fp32, or take a smaller student")
    if speed is not None and speed["share_of_fp32"] > 1:
        got = f"got {speed['exported_ms']:.2f} ms"
        lines.append(f"speed: expected at most fp32's {speed['fp32_ms']:.2f} ms of CPU time, {got}; keep fp32 on this machine")
    return lines


AUTO = "--keep-fp32 with one more part of the table, or --precision fp32"


def _gentler(precision: str, tables: str | None) -> str:
    """The next thing to try where too much quality was lost."""
    if tables == "int4":
        return "--tables int8"
    return {"int4": "--block 32, or --precision int8", "int8-static": "--precision int8", "int8": "--precision auto", "auto": AUTO}.get(
        precision, "--precision fp32"
    )
