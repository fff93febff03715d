"""`stillhouse bench`: speed and memory of the trainer against a plain torch loop on the same batches, and how near the hardware's limit.

Nothing of a run is written: no run folder, no checkpoint.
"""

import argparse
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from kd.distributed import process_group
from kd.models.config import quiet_transformers
from launcher.benchmarks.cases import Case, invented, of_run
from launcher.benchmarks.machine import busy, machine, said
from launcher.benchmarks.measured import Figures, measure
from launcher.benchmarks.picture import picture
from launcher.benchmarks.scaling import bench_ranks
from launcher.config.load import load_config
from launcher.errors import LaunchError
from launcher.process.steps import step
from launcher.tables import Column, PlainConsole, print_table
from launcher.text import share
from launcher.training.start import meet
from stillhouse.files import write_atomically

UPDATES = 3


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the table, write the files."""
    _check(arguments)
    if arguments.ranks > 1:
        return bench_ranks.run(arguments)
    console = PlainConsole()
    for file in filter(None, (arguments.json, arguments.picture)):
        Path(file).parent.mkdir(parents=True, exist_ok=True)  # now, and not after minutes
    with tempfile.TemporaryDirectory(prefix="stillhouse-bench-") as folder, quiet_transformers():
        meet(60.0)
        try:
            figures = _measured(arguments, Path(folder))
        finally:
            process_group.stop()
    facts = machine()
    show(figures, facts, console)
    if arguments.json:
        write_atomically(Path(arguments.json), json.dumps({"machine": facts, "cases": [one.row for one in figures]}, indent=1) + "\n")
        console.print(f"figures: {arguments.json}", soft_wrap=True)
    if arguments.picture:
        write_atomically(Path(arguments.picture), picture(figures, facts))
        console.print(f"picture: {arguments.picture}", soft_wrap=True)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise LaunchError for arguments that do not go together."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise LaunchError("bench: expected one process, got several ranks; start it alone")
    if arguments.settings and not arguments.config:
        raise LaunchError(f"bench: expected --config with settings, got {arguments.settings[0]} alone; name the run's YAML")
    if arguments.peer and arguments.config:
        raise LaunchError("--peer: expected it without --config, because its loss is fixed, got both; leave one out")
    if arguments.ranks > 1 and (arguments.peer or arguments.picture):
        raise LaunchError("--ranks: expected it without --peer and --picture, got both; leave one out")


def _measured(arguments: argparse.Namespace, folder: Path) -> list[Figures]:
    if arguments.config:
        cases: Sequence[Case] = of_run(load_config(arguments.config, arguments.settings))
    else:
        with step("writing random teachers and invented documents"):
            cases = invented(folder, arguments.precision)
    peer = Path(arguments.peer) if arguments.peer else None
    figures = []
    for case in cases:
        with step(f"measuring {case.name}"):
            figures.append(measure(case, arguments.updates, 1, peer))
    return figures


def _peer_columns(figures: Sequence[Figures]) -> list[Column]:
    if all(one.peer_ratio is None for one in figures):
        return []
    ratios = [f"{one.peer_ratio:.1f}" if one.peer_ratio else "" for one in figures]
    memory = [f"{one.peer_memory / 1e9:.2f} GB" if one.peer_memory is not None else "" for one in figures]
    meaning = "speed over DistilBERT's own step: one document a row, padded, whole logits in fp32, KL on all tokens"
    return [Column("of peer", ratios, meaning), Column("peer's", memory, "memory of an update of the peer")]


def show(figures: Sequence[Figures], facts: dict[str, Any], console: Console) -> None:
    """The table, its legend, and what makes a figure unreliable."""

    def cells(text: Any) -> list[str]:
        return [text(one) for one in figures]

    columns = [
        Column("precision", cells(lambda one: one.precision)),
        Column("tokens/s", cells(lambda one: f"{one.tokens_per_second:,.0f}"), "real tokens a second of the trainer"),
        Column(
            "of plain",
            cells(lambda one: f"{one.ratio:.2f} ({one.low:.2f}-{one.high:.2f})"),
            "speed of the trainer over that of a plain torch loop with whole logits: median and quartiles of pairs of updates",
        ),
        Column(
            "memory",
            cells(lambda one: f"{one.trainer_memory / 1e9:.2f} GB"),
            "of an update of the trainer, at its peak, above weights and moments",
        ),
        Column("plain's", cells(lambda one: f"{one.plain_memory / 1e9:.2f} GB"), "the same of the plain loop"),
        *_peer_columns(figures),
        Column(
            "of GEMM",
            cells(lambda one: "" if one.utilisation is None else share(one.utilisation)),
            "FLOP/s of an update over those of a matrix product of the student's width, measured in between",
        ),
        Column("stream", cells(lambda one: f"{one.stream_tokens_per_second:,.0f}"), "tokens a second of the stream alone"),
        Column(
            "loss off by",
            cells(lambda one: f"{one.loss_difference:.1e}"),
            "largest relative difference between the losses of both",
        ),
    ]
    print_table(console, Column("case", [one.case for one in figures], justify="left"), columns)
    for one in figures:
        parts = sorted(one.time.items(), key=lambda part: -part[1])
        named = ", ".join(f"{part.removeprefix('time/')} {share(value)}" for part, value in parts if value > 0)
        console.print(f"{one.case}, time of the trainer: {named}", soft_wrap=True)
    console.print(said(facts), soft_wrap=True)
    for one in figures:
        if not one.is_reliable:
            console.print(busy(one.case, one.wall_per_cpu), soft_wrap=True)
