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
from launcher.deployment.timing.candidates import letters
from launcher.process.standard_streams import say
from launcher.reporting.console import PipeSafeConsole
from launcher.tables import Column, print_table
from stillhouse.files import write_atomically

MOST_ROWS = 20
STATES = {True: "distillation does not pay", False: "no objection", None: "undecided"}


def run(arguments: argparse.Namespace) -> int:
    """Print the table, the front, the choice, and the cases in which distillation does not pay."""
    limits = Limits(arguments.latency_ms, arguments.size_mb, arguments.min_retained, arguments.calls_per_day, arguments.data_changes_days)
    measured = read_measured(arguments.folders)
    options = options_of(measured, arguments.task, (arguments.batch, arguments.length, arguments.threads))
    models = sorted(options.models, key=lambda one: (one.cpu_ms is None, one.cpu_ms or 0, -(one.retained or 0), one.bytes or 0))
    for number, model in enumerate(models):
        model.letter = letters(number)
    options.models = models
    front, chosen, near = pareto(models), cheapest(models, limits), nearest(models, limits)
    cases, commands = rules(models, limits, options.task), commands_of(options, limits.misses)
    _show(options, front, [one for one in (chosen, near) if one is not None], limits, PipeSafeConsole(), arguments.all)
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


def _show(options: Options, front: Sequence[Option], named: Sequence[Option], limits: Limits, console: Console, every: bool) -> None:
    """The models with their letters, and their figures. Models that the answer names are among the first MOST_ROWS."""
    shown = list(options.models)
    if len(shown) > MOST_ROWS and not every:
        needed = [one for one in shown if one in front or one in named or one.teacher]
        others = [one for one in shown if one not in needed][: max(0, MOST_ROWS - len(needed))]
        shown = [one for one in shown if one in needed or one in others]
    for one in shown:
        role = " (teacher)" if one.teacher and one.name != "teacher" else ""
        console.print(f"{one.letter}  {one.words}{role}: {one.folder}", soft_wrap=True, markup=False, highlight=False)
    if len(shown) < len(options.models):
        say(f"and {len(options.models) - len(shown)} more, slower or not measured: --all shows them")
    models = shown
    retained = [UNKNOWN if one.retained is None else f"{one.retained:.1%}{_interval(one)}" for one in models]
    times = [UNKNOWN if one.p95_ms is None else f"{one.p95_ms:.2f}" + ("" if one.trusted else "?") for one in models]
    meets = ["yes" if limits.meets(one) else "no" if limits.misses(one) else "?" for one in models]
    columns = [
        Column(models[0].metric, [UNKNOWN if one.value is None else f"{one.value:.4f}" for one in models]),
        Column("retained", retained, "of the teacher's metric, with the 95 % interval where one was measured"),
        Column("MB", [UNKNOWN if one.bytes is None else f"{one.bytes / 1e6:.1f}" for one in models], "weights on disk"),
        Column("p95", times, _time_legend(options)),
        Column("meets", meets, _limit_text(limits)),
        Column("front", ["*" if one in front else "" for one in models], "no other model is as good in metric, time and size at once"),
    ]
    print_table(console, Column("model", [one.letter for one in models], justify="left"), columns)


def _interval(option: Option) -> str:
    return "" if option.retained_interval is None else f" ({100 * option.retained_interval[0]:.1f}-{100 * option.retained_interval[1]:.1f})"


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
        "cheapest": None if chosen is None else chosen.words,
        "nearest": None if near is None else near.words,
        "rules": [asdict(case) for case in cases],
        "left_out": options.left_out,
        "not_measured": list(commands),
    }
