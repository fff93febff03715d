"""One line of numbers to three places: metrics.jsonl (the truth), the console with log.txt, and W&B.

1. Rank 0 hands `Reporters.line` one flat dict per report; docs/metrics.md explains every field.
2. metrics.jsonl gets it whole before anything else sees it; `trim` takes back what lies behind the checkpoint that a run goes on from.
3. W&B gets the same numbers (launcher/reporting/wandb.py).
4. samples.jsonl is written anew at each evaluation; W&B gets it as a table, and the finished student as an artifact.
5. curves.png is drawn from metrics.jsonl as the run goes on (launcher/reporting/live_curves.py).

Nothing here may stop or slow a run. A full disk or a silent server costs one message, and training goes on. W&B's client works on a
thread of its own, because it waits without limit for a W&B process that hangs.
"""

import errno
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console

from launcher.config.run_config import ReportSettings
from launcher.redaction import redacted
from launcher.reporting import live_curves, wandb
from launcher.reporting.background import MOST, BackgroundQueue
from launcher.reporting.console import Screen, sentence
from launcher.reporting.live_curves import LiveCurves
from launcher.run_folder.folder import SAMPLES
from launcher.run_folder.metrics_file import METRICS, AppendedFile, json_line, read
from stillhouse.files import write_atomically

LOG = "log.txt"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
HANGING_SECONDS = 10.0  # more: then its process hangs


class Reporters:
    """The reports of a run, on rank 0 only. Knows only the values that it is given."""

    def __init__(
        self,
        settings: ReportSettings,
        folder: Path,
        *,
        name: str,
        config: Mapping[str, Any],
        run_id: str,
        console: Console | None = None,
    ) -> None:
        self._lock = threading.RLock()  # W&B's thread speaks too
        self._said: set[str] = set()
        self._given_up = False
        self._folder, self._artifact = folder, settings.artifact
        self._screen = Screen(name, console)
        self._log = AppendedFile(folder / LOG)
        self._metrics = AppendedFile(folder / METRICS)
        self._curves: LiveCurves | None = None
        with self._never_fatal("curves.png"):
            self._curves = LiveCurves(folder, lambda error: self._once(_failure("curves.png", error)))
        self._wandb: wandb.WandB | None = None
        if settings.wandb != "off":
            with self._never_fatal("W&B"):
                self._wandb = wandb.WandB(settings, folder, name=name, config=config, run_id=run_id, say=self._heard)
                self._wandb_queue = BackgroundQueue("W&B", self._wandb_fails)
                self._wandb_queue.call(self._wandb.catch_up, read(folder / METRICS))

    def line(self, values: Mapping[str, Any]) -> None:
        """Report one line: kind train, heldout or event, update, and what docs/metrics.md lists for the kind."""
        values = redacted(dict(values))  # an event may quote an error that quotes a URL
        with self._lock:
            self._append(self._metrics, json_line(values))
            self._append(self._log, f"{_now()}  {sentence(values)}\n")
            with self._never_fatal("the console"):
                self._screen.report(values)
        if self._curves is not None and values["kind"] != "event":
            self._curves.reported()
        if self._wandb is not None and not self._wandb_queue.call(self._wandb.log, values):
            self._once(f"W&B: expected it to take line after line, got {MOST:,} that wait; lines are left out, {self._wandb.later}")

    def samples(self, update: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write samples.jsonl anew, and a table in W&B: masked sentences with the guesses of teacher and student."""
        rows = redacted([dict(row) for row in rows])
        with self._never_fatal(SAMPLES):
            write_atomically(self._folder / SAMPLES, "".join(json_line(row) for row in rows), sync=False)
        if self._wandb is not None:
            self._wandb_queue.call(self._wandb.table, update, rows)

    def student(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Make the finished student an artifact in W&B, as report.artifact says. facts: its description."""
        if self._wandb is not None and self._artifact != "none":
            self._wandb_queue.call(self._wandb.artifact, folder, redacted(dict(facts)), self._artifact == "upload")

    def moved(self, update: int, updates: int, loss: float | None, first: bool) -> None:
        """Move a terminal's bar. Without a terminal, print the first update of a start as a line."""
        values = {"kind": "train", "update": update, "updates": updates, "loss": loss}
        with self._lock, self._never_fatal("the console"):
            if self._screen.console.is_terminal:
                self._screen.report(values)
            elif first:
                self._screen.report(values)
                self._append(self._log, f"{_now()}  {sentence(values)}\n")

    def say(self, text: str) -> None:
        """A plain sentence to the console and log.txt, without the credentials that an error may quote."""
        text = redacted(text)
        with self._lock:
            self._append(self._log, "".join(f"{_now()}  {line}\n" for line in text.splitlines()))
            with self._never_fatal("the console"):
                self._screen.say(text)

    def close(self, exit_code: int = 0) -> None:
        """End the reports; W&B learns how the run ended, and gets FINISH_SECONDS to take the rest."""
        with self._never_fatal("the console"):
            self._screen.close()
        if self._curves is not None and not self._curves.finish():
            seconds = live_curves.FINISH_SECONDS
            self._once(f"curves.png: expected it to be drawn within {seconds:g} s, got nothing; `stillhouse plot RUN` draws it")
        self._curves = None
        if self._wandb is not None:
            self._wandb_queue.call(self._wandb.finish, exit_code)
            if not self._wandb_queue.finish(wandb.FINISH_SECONDS + HANGING_SECONDS):
                self._once(f"W&B: expected its process to end, got no answer from it; it is given up, {self._wandb.later}")
                self._given_up = True  # what waited for it will only complain
                self._wandb.give_up()
            self._wandb = None
        self._metrics.close()
        self._log.close()

    def _append(self, file: AppendedFile, text: str) -> None:
        try:
            file.append(text)
        except OSError as error:
            if not file.path.parent.is_dir():
                advice = "the run folder was moved or removed: move it back, or lines and checkpoints are lost"
            else:
                advice = "free space" if error.errno in NO_ROOM else "see its mode and its disk"
            self._once(f"{file.path}: expected to append a line, got {error.strerror or error}; the run goes on, {advice}")

    @contextmanager
    def _never_fatal(self, what: str) -> Iterator[None]:
        """Report any error inside once and continue. W&B and terminals raise too many kinds of errors to name."""
        try:
            yield
        except Exception as error:
            self._once(_failure(what, error))

    def _heard(self, text: str) -> None:
        """Print a message of W&B."""
        if not self._given_up:
            self.say(text)

    def _wandb_fails(self, error: Exception) -> None:
        if not self._given_up:
            self._once(_failure("W&B", error))

    def _once(self, text: str) -> None:
        with self._lock:
            if text not in self._said:
                self._said.add(text)
                self.say(text)


def _failure(what: str, error: Exception) -> str:
    return f"{what}: {' '.join(str(error).split()) or type(error).__name__}; the run goes on, {METRICS} has every number"


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")
