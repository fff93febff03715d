"""`stillhouse compare configs/compare/*.yaml --budget tokens|time`: techniques at equal cost, with confidence intervals.

1. Each file's variants x seeds become ordinary runs below one folder (launcher/comparison/settings.py). All of them are checked before
   the first starts.
2. With a budget of time, an update of each variant is timed (launcher/comparison/timing.py). Its run gets as many updates as fit.
3. Runs that are not done are run (launcher/comparison/jobs.py). Every finished run is scored against the teacher
   (launcher/comparison/scores.py).
4. Tables, verdicts, JSON, CSV and a picture are written anew after every start (launcher/comparison/results.py,
   launcher/comparison/plots.py).

A comparison that was stopped or killed continues. Seeds and variants that are added later run alone.
"""

import argparse
import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from launcher.comparison import plots, results, settings, timing
from launcher.comparison.jobs import Job, last_words, run_jobs
from launcher.comparison.results import Results
from launcher.comparison.scores import RunScores, learning_seconds
from launcher.comparison.settings import Comparison, PlannedRun
from launcher.comparison.tasks.compare import ComparingTasks
from launcher.comparison.tasks.plan import is_of_task
from launcher.config.load import load_settings
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.evaluation.scoring import with_retention
from launcher.planning.plan import make_plan
from launcher.process.signals import Exit
from launcher.reporting.console import PipeSafeConsole
from launcher.run_folder.folder import owned
from launcher.run_folder.metrics_file import METRICS, read
from launcher.tables import print_legend
from launcher.text import counted, duration
from stillhouse.errors import StillhouseError
from stillhouse.files import write_atomically

LEGEND = {
    "updates, tokens": "of the whole run",
    "state": "done, to do, or the updates of the last checkpoint",
    "time left": "of updates alone, by what was measured in this folder; ?: nothing was yet",
}
"""Of the table of a dry run."""


def run(arguments: argparse.Namespace) -> int:
    """Compare what each file says, one after the other; the worst exit code, or at once that of a stop."""
    files, words = settings.files_and_settings(arguments.words)
    made = [_comparing(file, words, arguments) for file in files]
    for comparing in made:
        comparing.check()
    code = 0
    for comparing in made:
        ended = comparing.dry_run() if arguments.dry_run else comparing.report_done() if arguments.report else comparing.go()
        if ended == Exit.SAVED_AFTER_SIGNAL:
            return ended
        code = code or ended
    return code


def _comparing(file: str, words: list[str], arguments: argparse.Namespace) -> "Comparing | ComparingTasks":
    """The comparison of a file, on text or on a task."""
    of_task = is_of_task(load_settings(Comparison, file, settings.PACKAGED).base)
    return (ComparingTasks if of_task else Comparing)(file, words, arguments, PipeSafeConsole())


class Comparing:
    """One comparison in one folder."""

    def __init__(self, file: str, words: list[str], arguments: argparse.Namespace, console: Console) -> None:
        self.where = file
        self.words = words
        self.arguments = arguments
        self.console = console
        self.settings: Comparison = settings.load(file, arguments.budget, arguments.amount)
        self.root = Path(arguments.folder) / Path(file).stem
        self.base: RunConfig = settings.base_config(self.settings, words, file)
        self.failed: dict[str, str] = {}
        self.rows: list[dict[str, Any]] = []

    def check(self) -> None:
        """LaunchError for anything that can be known before the first run."""
        runs = self.plan()
        settings.check_folder(self.root, self.base, runs)
        for planned in runs[: len(self.settings.variants)]:
            try:
                make_plan(planned.config, self.arguments.ranks)
            except StillhouseError as error:
                raise LaunchError(f"{self.where}: variants.{planned.variant}: {error}") from None

    def plan(self) -> list[PlannedRun]:
        """Every run; with a budget of time and no pace yet, of a length still to be found."""
        updates = None
        if self.arguments.budget == "time":
            known = timing.known(self.root)
            assert self.settings.seconds is not None
            updates = {name: max(1, int(self.settings.seconds / known[name])) if name in known else 1 for name in self.settings.variants}
        return settings.plan(self.settings, self.where, self.root, self.arguments.budget, self.words, updates)

    def go(self) -> int:
        """Everything that is not done yet."""
        self.say(self.settings_line(), "bold")
        self.root.mkdir(parents=True, exist_ok=True)
        with owned(self.root):
            settings.write_base_config(self.root, self.base)
            if self.arguments.budget == "time":
                assert self.settings.seconds is not None
                first = self.plan()[: len(self.settings.variants)]
                reference = self.settings.compared_with
                timing.measure(self.root, first, reference, self.arguments.ranks, self.settings.seconds, self.console)
            runs = self.plan()
            settings.check_folder(self.root, self.base, runs)
            scores = RunScores(self.base, self.settings.windows)
            by_job = {planned.job: planned for planned in runs}

            def finished(job: Job, code: int) -> None:
                self.finished(by_job[job], code, scores)

            code = run_jobs(list(by_job), self.arguments.ranks, self.arguments.jobs, self.console, finished)
            if code == Exit.SAVED_AFTER_SIGNAL:
                self.say(f"stopped: {len(self.rows)} of {counted(len(runs), 'run')} are done; start again to continue")
            if self.rows:
                self.report(self.collect_results(scores))
        return code

    def report_done(self) -> int:
        """Report what is done, and start nothing."""
        scores = RunScores(self.base, self.settings.windows)
        for planned in self.plan():
            if planned.job.done:
                self.finished(planned, Exit.DONE, scores)
        if not self.rows:
            raise LaunchError(f"{self.root}: expected at least one finished run to report, got none; start the comparison first")
        self.report(self.collect_results(scores))
        return Exit.DONE

    def finished(self, planned: PlannedRun, code: int, scores: RunScores) -> None:
        """Score one run that has ended, and say how it went. Its checkpoints are no longer needed."""
        if code != Exit.DONE:
            self.failed[planned.job.name] = last_words(planned.job)
            self.say(f"{planned.job.name}: failed with code {code}: {self.failed[planned.job.name]}")
            return
        self.rows.append({"variant": planned.variant, "seed": planned.seed, **scores.of_run(planned.job.folder, planned.seed)})
        shutil.rmtree(planned.job.folder / "checkpoints", ignore_errors=True)
        self.say(results.sentence(planned.job.name, self.rows[-1]))

    def collect_results(self, scores: RunScores) -> Results:
        """The results of the finished runs, each with the teacher's scores on the rows of its seed."""
        rows = []
        for row in self.rows:
            rows.append(with_retention(row, scores.of_teacher(self.root, row["seed"])))
        order = list(self.settings.variants)
        rows.sort(key=lambda row: (order.index(row["variant"]), row["seed"]))
        return Results(self.root.name, self.arguments.budget, self.settings.compared_with, order, rows, self.failed)

    def report(self, outcome: Results) -> None:
        """Tables and verdicts on the console; JSON, CSV and PNG in the folder of the runs."""
        for table in (*results.scores_tables(outcome), *results.costs_tables(outcome), *results.differences_tables(outcome)):
            self.console.print(table)
        print_legend(self.console, results.legend(outcome))
        for line in results.verdicts(outcome):
            self.say(line)
        stem = self.root / self.arguments.budget
        write_atomically(stem.with_suffix(".json"), json.dumps(outcome.as_dict(), indent=1) + "\n")
        write_atomically(stem.with_suffix(".csv"), results.rows_csv(outcome))
        plots.draw(outcome, stem.with_suffix(".png"))
        self.say(f"numbers and picture: {stem}.json, .csv, .png")

    def dry_run(self) -> int:
        """Every run, what of it is done, and how long the rest may take by what has been measured here."""
        runs = self.plan()
        rates = seconds_per_update(planned for planned in runs if planned.job.done) | timing.known(self.root)
        everybody = sum(rates.values()) / len(rates) if rates else None
        table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
        for heading in ("variant", "seed", "updates", "tokens", "state", "time left"):
            table.add_column(heading, justify="left" if heading in ("variant", "state") else "right")
        left, timed = 0.0, self.arguments.budget == "time"
        for planned in runs:
            job, config = planned.job, planned.config
            tokens = job.updates * config.train.global_batch * config.data.window_tokens
            open_length = timed and planned.variant not in timing.known(self.root)
            rate = rates.get(planned.variant, everybody)
            seconds = self.settings.seconds if timed else None if rate is None else job.updates * rate
            seconds = None if seconds is None else seconds * (1 - job.updates_done / job.updates)
            left += seconds or 0.0
            state = "done" if job.done else f"{counted(job.updates_done, 'update')} done" if job.updates_done else "to do"
            counts = ["to be measured", ""] if open_length else [f"{job.updates:,}", f"{tokens:,}"]
            table.add_row(planned.variant, str(planned.seed), *counts, state, "?" if seconds is None else duration(seconds))
        self.say(self.settings_line(), "bold")
        self.console.print(table)
        print_legend(self.console, LEGEND)
        unknown = (
            "not known before a first run is done" if rates == {} and not timed else f"{duration(left / self.arguments.jobs)} of learning"
        )
        to_do = sum(not planned.job.done for planned in runs)
        how = f"{counted(self.arguments.ranks, 'rank')}, {self.arguments.jobs} at a time"
        self.say(f"{to_do} of {counted(len(runs), 'run')} to do on {how}; expected: {unknown}; starting, scoring and saving come on top")
        return Exit.DONE

    def settings_line(self) -> str:
        """The comparison in one line."""
        runs = f"{counted(len(self.settings.variants), 'variant')} x {counted(len(self.settings.seeds), 'seed')}"
        budget = (
            f"{self.settings.tokens:,} tokens" if self.arguments.budget == "tokens" else f"{self.settings.seconds:g} seconds of learning"
        )
        return f"{self.root.name}: {runs}, {budget} each, in {self.root}"

    def say(self, text: str, style: str | None = None) -> None:
        """A line, not wrapped."""
        self.console.print(text, style=style, soft_wrap=True, highlight=False)


def seconds_per_update(runs: Iterable[PlannedRun]) -> dict[str, float]:
    """The mean seconds per update of each variant, over its finished runs."""
    taken: dict[str, list[float]] = {}
    for planned in runs:
        lines = [line for line in read(planned.job.folder / METRICS) if line["kind"] == "train"]
        taken.setdefault(planned.variant, []).append(learning_seconds(lines) / planned.job.updates)
    return {variant: sum(values) / len(values) for variant, values in taken.items()}
