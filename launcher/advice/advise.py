"""`stillhouse advise`: what was measured of a task's models against limits. It computes no model and invents no figure."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console

from launcher.advice.commands import UNKNOWN, commands_of
from launcher.advice.files import read_measured
from launcher.advice.option import Option, Options
from launcher.advice.options import options_of
from launcher.advice.rules import Limits, Rule, cheapest, figures, nearest, pareto, rules
from launcher.process.standard_streams import say
from launcher.reporting.console import PipeSafeConsole
from launcher.tables import Column, print_table
from stillhouse.files import write_atomically

STATES = {True: "distillation does not pay", False: "no objection", None: "undecided"}


def run(arguments: argparse.Namespace) -> int:
    """Print the table, the front, the choice, and the cases in which distillation does not pay."""
    limits = Limits(arguments.latency_ms, arguments.size_mb, arguments.min_retained, arguments.calls_per_day, arguments.data_changes_days)
    measured = read_measured(arguments.folders)
    options = options_of(measured, arguments.task, (arguments.batch, arguments.length, arguments.threads))
    models = sorted(options.models, key=lambda one: (one.cpu_ms is None, one.cpu_ms or 0, one.bytes or 0))
    options.models = models
    front, chosen, near = pareto(models), cheapest(models, limits), nearest(models, limits)
    cases, commands = rules(models, limits, options.task), commands_of(options)
    _show(options, front, limits, PipeSafeConsole())
    say(f"Pareto front (metric, time, size): {'; '.join(one.title for one in front) or 'no model has all three figures'}")
    if chosen is not None:
        say(f"cheapest that meets all limits: {chosen.title}: {figures(chosen)}; {chosen.folder}")
    elif near is not None:
        say(f"no measured model meets all limits; the nearest is {near.title}: {figures(near)}")
    else:
        say("no model has every figure that the limits need: run the commands below")
    for case in cases:
        say(f"{STATES[case.applies]}: {case.name}: {case.text}")
    for line in options.left_out:
        say(f"left out: {line}")
    for command in commands:
        say(f"{UNKNOWN}: {command}")
    if arguments.json:
        content = _content(options, limits, front, chosen, near, cases, commands)
        write_atomically(Path(arguments.json), json.dumps(content, indent=1, ensure_ascii=False, default=str) + "\n")
    return 0


def _show(options: Options, front: Sequence[Option], limits: Limits, console: Console) -> None:
    models = options.models
    retained = [UNKNOWN if one.retained is None else f"{one.retained:.1%}{_interval(one)}" for one in models]
    times = [UNKNOWN if one.p95_ms is None else f"{one.p95_ms:.2f}" + ("" if one.trusted else "?") for one in models]
    meets = ["yes" if limits.meets(one) else "?" if limits.excess(one) is None else "no" for one in models]
    columns = [
        Column("form", [one.form for one in models], justify="left"),
        Column(models[0].metric, [UNKNOWN if one.value is None else f"{one.value:.4f}" for one in models]),
        Column("retained", retained, "of the teacher's metric, with the 95 % interval where one was measured"),
        Column("MB", [UNKNOWN if one.bytes is None else f"{one.bytes / 1e6:.1f}" for one in models], "weights on disk"),
        Column("p95", times, _time_legend(options)),
        Column("meets", meets, _limit_text(limits)),
        Column("front", ["*" if one in front else "" for one in models], "no other model is as good in metric, time and size at once"),
    ]
    names = [
        one.name + (f", {one.seed}" if one.seed else "") + (" (teacher)" if one.teacher and one.name != "teacher" else "") for one in models
    ]
    print_table(console, Column("model", names, justify="left"), columns)


def _interval(option: Option) -> str:
    return "" if option.retained_interval is None else f" ({option.retained_interval[0]:.1%} to {option.retained_interval[1]:.1%})"


def _time_legend(options: Options) -> str:
    if options.shape is None:
        return UNKNOWN
    batch, length, threads = options.shape
    shape = f"batch {batch}, {length} tokens, {threads} thread{'s' if threads > 1 else ''}"
    return f"95th percentile, ms; {shape}; {options.processor}; ?: other processes had the core"


def _limit_text(limits: Limits) -> str:
    parts = [] if limits.latency_ms is None else [f"{limits.latency_ms:g} ms"]
    parts += [] if limits.size_mb is None else [f"{limits.size_mb:g} MB"]
    return ", ".join([*parts, f"{limits.retained:.1%} retained"])


def _content(
    options: Options,
    limits: Limits,
    front: Sequence[Option],
    chosen: Option | None,
    near: Option | None,
    cases: Sequence[Rule],
    commands: Sequence[str],
) -> dict[str, object]:
    """Everything, for --json. A figure that was not measured is null."""
    models = [asdict(one) | {"meets": limits.meets(one), "front": one in front} for one in options.models]
    shape = None if options.shape is None else dict(zip(("batch", "length", "threads"), options.shape, strict=True))
    return {
        "task": options.task,
        "limits": asdict(limits),
        "processor": options.processor,
        "shape": shape,
        "models": models,
        "cheapest": None if chosen is None else chosen.title,
        "nearest": None if near is None else near.title,
        "rules": [asdict(case) for case in cases],
        "left_out": options.left_out,
        "not_measured": list(commands),
    }
