"""`stillhouse retention`: fine-tunes teachers, trains students, and writes the report of what the students retain.

Each run is an ordinary `stillhouse task train` in a folder of its own. A finished run is not run again, and a killed one continues. The
report is written after each task.
"""

import argparse
import shutil
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from launcher.comparison.jobs import Job, last_words, run_jobs
from launcher.config.yaml_file import dump_yaml
from launcher.process.signals import Exit, StopFlag
from launcher.report.write import write_report
from launcher.reporting.console import PipeSafeConsole
from launcher.retention.collect import results_of
from launcher.retention.exports import check_packages, export_all
from launcher.retention.finished import Finished, choosing_score, chose_on_train, report_of
from launcher.retention.initial import make_initial
from launcher.retention.latency import check_latency, measure
from launcher.retention.plan import Plan
from launcher.retention.settings import TEACHER, load_retention
from launcher.run_folder.folder import owned
from launcher.tables import print_legend
from launcher.tasks.build import check_metric_packages
from launcher.text import counted, duration
from stillhouse.files import write_atomically

LEGEND = {
    "rows": "of train, and of the transfer set without labels",
    "state": "done, to do, or the updates that are done",
    "later seeds": "their learning rate is the best of the first seed's",
}


def run(arguments: argparse.Namespace) -> int:
    """The proof, or what of it is not done yet."""
    check_metric_packages()
    settings = load_retention(arguments.config, arguments.settings)
    root = Path(arguments.folder or Path("runs") / "retention" / Path(arguments.config).stem)
    plan = Plan(arguments.config, settings, root)
    check_latency(plan)
    if settings.int8:
        check_packages()
    plan.check(arguments.ranks)
    proof = Proof(plan, arguments.ranks, arguments.jobs, PipeSafeConsole())
    if arguments.dry_run:
        proof.dry_run()
        return Exit.DONE
    root.mkdir(parents=True, exist_ok=True)
    with owned(root):
        write_atomically(root / "retention.yaml", dump_yaml(settings.model_dump(mode="json")))
        return proof.go()


class Proof:
    """A proof that runs."""

    def __init__(self, plan: Plan, ranks: int, side_by_side: int, console: Console) -> None:
        self.plan = plan
        self.ranks = ranks
        self.side_by_side = side_by_side
        self.console = console
        self.finished: dict[str, Finished] = {name: {} for name in plan.settings.tasks}
        self.failed: dict[str, str] = {}
        self.costs = Costs(plan)
        self.started = time.monotonic()

    def go(self) -> int:
        """All runs, task by task; the exit code."""
        stop = StopFlag.install()
        for task in self.plan.settings.tasks:
            for learner in self.plan.learners:
                code = self._learner(task, learner, stop)
                if code == Exit.SAVED_AFTER_SIGNAL or stop.requested:
                    done = self.costs.count - len(self.costs.left)
                    self.say(f"stopped: {done} of {counted(self.costs.count, 'run')} are done; start again to continue")
                    return Exit.SAVED_AFTER_SIGNAL
                if learner == TEACHER and not self.finished[task].get(TEACHER):
                    self.say(f"{task}: no teacher, so no student is trained")
                    break
            self._report()
        if self.plan.settings.int8 and any(self.finished.values()):
            export_all(self.plan, self.finished, self.say)
            self._report()
        if self.plan.settings.latency is True and any(self.finished.values()):
            measure(self.plan, self.finished)
            self._report()
        for name, reason in self.failed.items():
            self.say(f"failed: {name}: {reason}")
        return Exit.FAILED if self.failed else Exit.DONE

    def dry_run(self) -> None:
        """Print every run with its rows and updates."""
        table = Table(box=None, pad_edge=False)
        for name in ("run", "rows", "updates", "state"):
            table.add_column(name, justify="left" if name in ("run", "state") else "right", overflow="fold")
        total = 0
        for task, learner, job in self.plan.expected():
            train, without = self.plan.rows(task, learner)
            rows = f"{train:,} + {without:,}" if without else f"{train:,}"
            state = "done" if job.done else f"{job.updates_done:,}" if job.updates_done else "to do"
            table.add_row(job.name, rows, f"{job.updates:,}", state)
            total += job.updates
        self.console.print(table)
        self.say(f"{counted(self.costs.count, 'run')}, {total:,} updates, in {self.plan.root}")
        print_legend(self.console, LEGEND)

    def say(self, text: str) -> None:
        self.console.print(text, soft_wrap=True, highlight=False, markup=False)

    def _learner(self, task: str, learner: str, stop: StopFlag) -> int:
        """The runs of a model on a task: every learning rate with the first seed, then the best with the others."""
        first, *others = self.plan.settings.seeds
        rates = self.plan.settings.learner(learner).learning_rates
        code = self._run(task, learner, self._jobs(task, learner, [first], rates), stop)
        done = {rate: job for rate, job in zip(rates, self._jobs(task, learner, [first], rates), strict=True) if job.done}
        if code == Exit.SAVED_AFTER_SIGNAL or stop.requested or not done:
            return code
        best = max(done, key=lambda rate: choosing_score(done[rate]))
        if len(rates) > 1:
            rows = "a part of train" if chose_on_train(report_of(done[best])) else "dev"
            self.say(f"{task}: {learner}: learning rate {best:g} is the best on {rows}")
        code = self._run(task, learner, self._jobs(task, learner, others, [best]), stop)
        jobs = dict(zip(self.plan.settings.seeds, self._jobs(task, learner, [first, *others], [best]), strict=True))
        self.finished[task][learner] = {seed: job for seed, job in jobs.items() if job.done}
        return code

    def _jobs(self, task: str, learner: str, seeds: list[int], rates: list[float]) -> list[Job]:
        """The runs of those seeds and rates whose teacher is there."""
        teachers = self.finished[task].get(TEACHER, {})
        kept = [seed for seed in seeds if learner == TEACHER or seed in teachers]
        teacher_rate = float(next(iter(teachers.values())).folder.parent.name.removeprefix("rate-")) if teachers else rates[0]
        return self.plan.jobs(task, learner, kept, rates, teacher_rate)

    def _run(self, task: str, learner: str, jobs: list[Job], stop: StopFlag) -> int:
        for job in jobs:
            self.plan.check_folder(task, job)
            if not job.done and self.plan.needs_initial(learner):
                make_initial(self.plan, learner, int(job.folder.name.removeprefix("seed-")))
        before = {job for job in jobs if job.done}

        def finished(job: Job, code: int) -> None:
            self.costs.finish(task, learner, job)
            if code == Exit.DONE:  # also of a run that ended just as an earlier start was stopped
                shutil.rmtree(job.folder / "checkpoints", ignore_errors=True)
            if job in before:
                return
            left = f"; {self.costs.text()}" if self.costs.left else ""
            number = f"{self.costs.count - len(self.costs.left)}/{self.costs.count}"
            if code != Exit.DONE:
                self.failed[job.name] = last_words(job)
                self.say(f"{number} {job.name}: failed with code {code}: {self.failed[job.name]}{left}")
                return
            report = report_of(job)
            key = report["task"]["metric"]
            self.say(f"{number} {job.name}: {key} {report['dev'][key]:.3f} in {duration(report['elapsed_seconds'])}{left}")

        return run_jobs(jobs, self.ranks, self.side_by_side, self.console, finished, stop) if jobs else Exit.DONE

    def _report(self) -> None:
        notes = [f"Failed, and not in the tables: {name}: {reason}" for name, reason in self.failed.items()]
        results = results_of(self.plan, {task: runs for task, runs in self.finished.items() if runs}, notes)
        if results is None:
            return
        tables = write_report(results, self.plan.root)
        if all(self.finished.values()):
            self.console.print(tables)
            self.say(f"report: {self.plan.root / 'report.html'}")


class Costs:
    """Runs that are left, and the time that they take, by the seconds per update of those that are done."""

    def __init__(self, plan: Plan) -> None:
        self.left = {(task, learner, number): job for number, (task, learner, job) in enumerate(plan.expected())}
        self.count = len(self.left)
        self._seconds: dict[tuple[str, str], list[float]] = {}

    def finish(self, task: str, learner: str, job: Job) -> None:
        """Take a run off the list, with its time if it is done."""
        key = next((key for key in self.left if key[:2] == (task, learner)), None)
        if key is not None:
            del self.left[key]
        if job.done:
            self._seconds.setdefault((task, learner), []).append(report_of(job)["elapsed_seconds"] / max(1, job.updates))

    def text(self) -> str:
        """The time left in words."""
        return f"about {duration(sum(job.updates * self._pace(key[0], key[1]) for key, job in self.left.items()))} left"

    def _pace(self, task: str, learner: str) -> float:
        """Seconds per update: of the same model on the task, else of the task, else of all."""
        same = self._seconds.get((task, learner), [])
        of_task = [value for (name, _), values in self._seconds.items() if name == task for value in values]
        known = same or of_task or [value for values in self._seconds.values() for value in values]
        return sum(known) / len(known) if known else 0.0
