"""`stillhouse compare` on a task: variants x seeds as ordinary task runs, ranked by the task's metric with the noise stated."""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

from rich.console import Console

from kd.tasks.metrics.catalogue import metric
from launcher.comparison.jobs import Job, last_words, run_jobs
from launcher.comparison.tasks import plots
from launcher.comparison.tasks import results as task_results
from launcher.comparison.tasks.plan import PlannedTask, check_folders, load_task_comparison, plan_tasks
from launcher.comparison.tasks.results import TaskResults
from launcher.config.load import public_values
from launcher.errors import LaunchError
from launcher.process.signals import Exit
from launcher.run_folder.folder import owned
from launcher.tables import print_legend
from launcher.tasks.build import check_metric_packages
from launcher.tasks.plan import make_task_plan
from launcher.tasks.source import TaskSource
from launcher.text import counted
from stillhouse.errors import StillhouseError
from stillhouse.files import write_atomically

RESULTS = "comparison"


class ComparingTasks:
    """One comparison of runs on a task, in one folder."""

    def __init__(self, file: str, words: list[str], arguments: argparse.Namespace, console: Console) -> None:
        self.file, self.arguments, self.console = file, arguments, console
        self.settings = load_task_comparison(file, arguments.budget)
        self.root = Path(arguments.folder) / Path(file).stem
        self.runs = plan_tasks(self.settings, file, self.root, words)
        self.jobs: dict[Job, PlannedTask] = {}
        self.rows: list[dict[str, Any]] = []
        self.failed: dict[str, str] = {}
        self.metric = ""

    def check(self) -> None:
        """LaunchError for anything that can be known before the first run. The data are read once for variants that share them."""
        check_metric_packages()
        check_folders(self.runs)
        sources: dict[str, TaskSource] = {}
        updates: dict[str, int] = {}
        metrics: dict[str, None] = {}
        for planned in self.runs[: len(self.settings.variants)]:
            values = public_values(planned.config)
            key = json.dumps([values["data"], values["evaluate"]["choose_on"], bool(planned.config.members)])
            try:
                source = sources.get(key) or sources.setdefault(key, TaskSource.read(planned.config))
                updates[planned.variant] = make_task_plan(planned.config, source, self.arguments.ranks).updates
            except StillhouseError as error:
                raise LaunchError(f"{self.file}: variants.{planned.variant}: {error}") from None
            metrics[f"{planned.config.data.kind}: {planned.config.evaluate.metric or 'official'}"] = None
        if len(metrics) > 1:
            raise LaunchError(f"{self.file}: variants: expected one kind and metric, got {', '.join(metrics)}; make two files of it")
        for planned in self.runs:
            name = f"{planned.variant}, seed {planned.seed}"
            job = Job(name, planned.folder, self.settings.base, planned.words, updates[planned.variant])
            self.jobs[job] = planned

    def go(self) -> int:
        """Everything that is not done yet."""
        self.say(self.line(), "bold")
        self.root.mkdir(parents=True, exist_ok=True)
        with owned(self.root):
            code = run_jobs(list(self.jobs), self.arguments.ranks, self.arguments.jobs, self.console, self.finished)
            if code == Exit.SAVED_AFTER_SIGNAL:
                self.say(f"stopped: {len(self.rows)} of {counted(len(self.jobs), 'run')} are done; start again to continue")
            if self.rows:
                self.report()
        return code

    def report_done(self) -> int:
        """Report what is done, and start nothing."""
        for job in self.jobs:
            if job.done:
                self.finished(job, Exit.DONE)
        if not self.rows:
            raise LaunchError(f"{self.root}: expected at least one finished run to report, got none; start the comparison first")
        self.report()
        return Exit.DONE

    def finished(self, job: Job, code: int) -> None:
        """Take the scores of one run that has ended, and say how it went. Its checkpoints are no longer needed."""
        if code != Exit.DONE:
            self.failed[job.name] = last_words(job)
            self.say(f"{job.name}: failed with code {code}: {self.failed[job.name]}")
            return
        report = json.loads((job.folder / "report.json").read_text(encoding="utf-8"))
        planned = self.jobs[job]
        self.metric = report["task"]["metric"]
        self.rows.append(task_results.row_of(planned.variant, planned.seed, report))
        shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
        self.say(task_results.sentence(job.name, self.metric, self.rows[-1]))

    def report(self) -> None:
        """The ranking and the verdicts on the console; JSON, CSV and PNG beside the runs."""
        order = list(self.settings.variants)
        self.rows.sort(key=lambda row: (order.index(row["variant"]), row["seed"]))
        lower = metric(self.runs[0].config.data.kind, self.metric).better == "lower"
        outcome = TaskResults(self.root.name, self.metric, lower, order, self.settings.reference, self.rows, self.failed)
        self.console.print(task_results.ranking_table(outcome))
        print_legend(self.console, task_results.legend(outcome))
        for line in task_results.verdicts(outcome):
            self.say(line)
        stem = self.root / RESULTS
        write_atomically(stem.with_suffix(".json"), json.dumps(outcome.as_dict(), indent=1, ensure_ascii=False) + "\n")
        write_atomically(stem.with_suffix(".csv"), task_results.rows_csv(outcome))
        plots.draw(outcome, stem.with_suffix(".png"))
        self.say(f"numbers and picture: {stem}.json, .csv, .png")

    def dry_run(self) -> int:
        """Every run, and what of it is done."""
        self.say(self.line(), "bold")
        rows = []
        for job, planned in self.jobs.items():
            state = "done" if job.done else f"{counted(job.updates_done, 'update')} done" if job.updates_done else "to do"
            rows.append([planned.variant, str(planned.seed), f"{job.updates:,}", state])
        self.console.print(task_results.table_of(rows, ("variant", "seed", "updates", "state")))
        to_do = sum(not job.done for job in self.jobs)
        how = f"{counted(self.arguments.ranks, 'rank')}, {self.arguments.jobs} at a time"
        self.say(f"{to_do} of {counted(len(self.jobs), 'run')} to do on {how}")
        return Exit.DONE

    def line(self) -> str:
        """The comparison in one line."""
        runs = f"{counted(len(self.settings.variants), 'variant')} x {counted(len(self.settings.seeds), 'seed')}"
        return f"{self.root.name}: {runs}, in {self.root}"

    def say(self, text: str, style: str | None = None) -> None:
        """A line, not wrapped."""
        self.console.print(text, style=style, soft_wrap=True, highlight=False)
