"""What a person sees of a run: sentences for every line, and on a terminal one live bar instead of the train lines.

`sentence`, `duration` and `size` return text; `Screen` writes to the terminal. This module knows no file and no W&B.
"""

import math
import sys
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from launcher.process.standard_streams import silence

LOSS = "loss/"


def sentence(values: Mapping[str, Any]) -> str:
    """One report line as one line of text: `update 120/1,000  loss 5.413 (mlm 5.2, …)  …`."""
    kind, update = values["kind"], f"update {values['update']:,}"
    if kind == "event":
        event, message = str(values.get("event", "")).replace("_", " "), str(values.get("message", ""))
        return message if message.startswith(event) and message else f"{event}: {message}".rstrip(": ")
    if kind == "heldout":
        parts = [f"{update}  held-out loss {_number(values.get('heldout_loss'))}"]
        parts += [f"{name} {_share(values[key])}" for name, key in (("top-1", "heldout_top1"), ("top-5", "heldout_top5")) if key in values]
        return "  ".join(parts)
    terms = ", ".join(f"{key.removeprefix(LOSS)} {_number(value)}" for key, value in values.items() if key.startswith(LOSS))
    total = f"/{values['updates']:,}" if "updates" in values else ""
    loss = f"loss {_number(values.get('loss'))}" + (f" ({terms})" if terms else "")
    known = {
        "learning_rate": lambda v: f"lr {v:.3g}",
        "gradient_norm": lambda v: f"norm {_number(v)}",
        "tokens_per_second": lambda v: f"{v:,.0f} tokens/s",
        "epoch": lambda v: f"epoch {v:.3f}",
        "data_wait_share": lambda v: f"data wait {_share(v)}",
        "memory_gb": lambda v: f"{v:.2f} GB",
        "seconds_left": lambda v: f"{duration(v)} left",
        "skipped_updates": lambda v: f"{v} skipped" if v else "",
    }
    parts = [show(values[key]) for key, show in known.items() if values.get(key) is not None]
    return "  ".join(part for part in (update + total, values.get("phase", ""), loss, *parts) if part)


def duration(seconds: float) -> str:
    """A time a person reads at a glance: `42 s`, `3 min 05 s`, `2 h 07 min`, `3 d 04 h`."""
    if not math.isfinite(seconds):
        return "unknown time"
    whole = max(0, round(seconds))
    for unit, name, small, part, digits in ((86400, "d", 3600, "h", 2), (3600, "h", 60, "min", 2), (60, "min", 1, "s", 2)):
        if whole >= unit:
            return f"{whole // unit} {name} {whole % unit // small:0{digits}d} {part}"
    return f"{whole} s"


def size(count: float) -> str:
    """Bytes in the largest decimal unit that leaves a digit before the point: `1.25 GB`, `310 kB`."""
    for unit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.3g} {name}" if count < 999.5 * unit else f"{count / unit:,.0f} {name}"
    return f"{count:.0f} B"


class Listened(Console):
    """A console that outlives its reader (`| head -1`), where rich would end the process."""

    def on_broken_pipe(self) -> None:
        """What follows goes nowhere."""
        self.quiet = True
        silence(sys.stdout)


class Screen:
    """A console that shows a run: a live bar on a terminal, plain lines elsewhere (and in a notebook, a pipe or a batch job's log)."""

    def __init__(self, name: str, console: Console | None = None) -> None:
        self.console = console or Listened()
        self._name = name
        self._bar: Progress | None = None
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
        facts = "  ".join(part for part in (values.get("phase", ""), f"loss {_number(values.get('loss'))}") if part)
        if values.get("tokens_per_second") is not None:
            facts += f"  {values['tokens_per_second']:,.0f} tokens/s"
        if values.get("seconds_left") is not None:
            facts += f"  {duration(values['seconds_left'])} left"
        assert self._task is not None
        self._bar.update(self._task, completed=values["update"], total=values["updates"], facts=facts, refresh=True)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}" if value and abs(value) < 1 else f"{value:.3f}"


def _share(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.1f} %"
