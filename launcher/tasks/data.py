"""`stillhouse task data`: what was read of a task's files, and what was dropped, cut, converted or guessed."""

import argparse
import sys
from dataclasses import replace

from rich import box
from rich.console import Console
from rich.table import Table

from data_shards.tasks.describe import SplitSummary, describe
from launcher.config.load import load_run
from launcher.config.task_config import TaskRunConfig
from launcher.errors import LaunchError
from launcher.process.standard_streams import say
from launcher.reporting.console import PipeSafeConsole
from launcher.tasks.augment import most_rows, read_augmented
from launcher.tasks.source import AUGMENTED, TaskSource, base_model

SHOWN = 12  # labels in the table


def run(arguments: argparse.Namespace) -> int:
    """Print the tables."""
    config = task_config(arguments.config, arguments.settings)
    source = TaskSource.read(config)
    made = read_augmented(source)
    model = base_model(config)
    encoded = {split: source.encoded(split, model) for split in source.splits if len(source.splits[split])}
    shown = {**source.data.splits, **{name: rows for name, rows in source.splits.items() if name == AUGMENTED}}
    summary = describe(replace(source.data, splits=shown), encoded)
    show(summary.splits, PipeSafeConsole())
    for line in summary.lines:
        say(f"  {line}")
    if not made:
        say(f"  augmented: at most {most_rows(source):,} rows, made once before the first update of a run")
    return 0


def task_config(path: str, settings: list[str]) -> TaskRunConfig:
    """The configuration of a task. Raises LaunchError for a run on shards."""
    config = load_run(path, settings, note=lambda text: say(f"stillhouse: {text}", sys.stderr))
    if not isinstance(config, TaskRunConfig):
        raise LaunchError(f"{path}: expected a task (data.kind or data.preset), got a run on shards; see configs/tasks/")
    return config


def show(splits: tuple[SplitSummary, ...], console: Console) -> None:
    """One row a split: rows, lengths in tokens; then one row a label."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name in ("split", "rows", "median", "90 %", "99 %", "longest", "majority"):
        table.add_column(name, justify="left" if name == "split" else "right", no_wrap=True)
    for one in splits:
        lengths = [f"{one.lengths[percent]:,}" if percent in one.lengths else "" for percent in (50, 90, 99, 100)]
        table.add_row(one.split, f"{one.rows:,}", *lengths, "" if one.majority is None else f"{one.majority:.1%}")
    console.print(table)
    console.print("median to longest: tokens of a row after cutting. majority: share of the most frequent label.", highlight=False)
    labels = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    labels.add_column("label")
    for one in splits:
        labels.add_column(one.split, justify="right", no_wrap=True)
    names = list(dict.fromkeys(name for one in splits for name in one.labels))
    for name in names[:SHOWN]:
        labels.add_row(name, *(f"{one.labels[name]:,}" if name in one.labels else "" for one in splits))
    if names:
        console.print(labels)
    if len(names) > SHOWN:
        console.print(f"and {len(names) - SHOWN} more labels", highlight=False)
    for one in splits:
        if one.targets is not None:
            low, mean, high = one.targets
            console.print(f"{one.split}: targets from {low:g} to {high:g}, mean {mean:.3f}", highlight=False)
