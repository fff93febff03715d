"""The console of a run: a sentence for every line, and on a terminal one live bar instead of the train lines.

`sentence` returns text; `Screen` writes to the terminal. This module knows no file and no W&B.
"""

import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from kd.evaluation.scores import SCORES
from launcher.process.standard_streams import silence
from launcher.reporting.catalogue import TRAIN_METRICS
from launcher.tables import PlainConsole
from launcher.text import duration, number, share

LOSS = "loss/"


def sentence(values: Mapping[str, Any]) -> str:
    """One report line as one line of text: `update 120/1,000  loss 5.413 (mlm 5.2, …)  …`."""
    kind, update = values["kind"], f"update {values['update']:,}"
    if kind == "event":
        event, message = str(values.get("event", "")).replace("_", " "), str(values.get("message", ""))
        return message if message.startswith(event) and message else f"{event}: {message}".rstrip(": ")
    if kind == "heldout":
        parts = [f"{update}  held-out loss {number(values.get('heldout_loss'))}"]
        others = [score for score in SCORES if score.during_runs and score.key != "loss" and f"heldout_{score.key}" in values]
        for score in others:
            value = values[f"heldout_{score.key}"]
            parts.append(f"{score.heading} {share(value) if '%' in score.form else number(value)}")
        known = {"heldout_loss", *(f"heldout_{score.key}" for score in SCORES)}
        parts += [
            f"{key.removeprefix('heldout_')} {value:.4f}"
            for key, value in values.items()
            if key.startswith("heldout_") and key not in known
        ]
        return "  ".join(parts)
    terms = ", ".join(f"{key.removeprefix(LOSS)} {number(value)}" for key, value in values.items() if key.startswith(LOSS))
    total = f"/{values['updates']:,}" if "updates" in values else ""
    loss = f"loss {number(values.get('loss'))}" + (f" ({terms})" if terms else "")
    parts = [metric.text(values[metric.key]) for metric in TRAIN_METRICS if metric.text and values.get(metric.key) is not None]
    return "  ".join(part for part in (update + total, values.get("phase", ""), loss, *parts) if part)


class PipeSafeConsole(PlainConsole):
    """A console that outlives its reader (`| head -1`), where rich would end the process."""

    def on_broken_pipe(self) -> None:
        """Discard everything that follows."""
        self.quiet = True
        silence(sys.stdout)


class Screen:
    """The display of a run: a live bar on a terminal, plain lines in a notebook, a pipe or a batch job's log."""

    def __init__(self, name: str, console: Console | None = None) -> None:
        self.console = console or PipeSafeConsole()
        self._name = name
        self._bar: Progress | None = None
        self._shown: dict[str, Any] = {}
        self._task: TaskID | None = None

    def report(self, values: Mapping[str, Any]) -> None:
        """Show one report line."""
        if values["kind"] == "train" and self.console.is_terminal and "updates" in values:
            self._move(values)
        else:
            self.say(sentence(values))

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one; never wrapped, never read as markup."""
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the terminal as it was, the bar's last state on it."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _move(self, values: Mapping[str, Any]) -> None:
        if self._bar is None:
            text = TextColumn("{task.description}  {task.completed:,.0f}/{task.total:,.0f}  {task.fields[facts]}", markup=False)
            self._bar = Progress(BarColumn(bar_width=24), text, console=self.console, auto_refresh=False)
            self._task = self._bar.add_task(self._name, total=values["updates"], facts="")
            self._bar.start()
        self._shown |= values  # a report has more than the updates between reports
        values = self._shown
        loss = "" if values["update"] == 0 or values.get("loss") is None else f"loss {number(values['loss'])}"
        facts = "  ".join(part for part in (values.get("phase", ""), loss or "waiting for an update") if part)
        if values.get("tokens_per_second") is not None:
            facts += f"  {values['tokens_per_second']:,.0f} tokens/s"
        if values.get("seconds_left") is not None:
            facts += f"  {duration(values['seconds_left'])} left"
        assert self._task is not None
        self._bar.update(self._task, completed=values["update"], total=values["updates"], facts=facts, refresh=True)
