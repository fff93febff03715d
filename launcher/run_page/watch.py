"""`stillhouse watch RUN`: the numbers of a run live in the terminal, from its folder alone. It writes nothing into the folder."""

import argparse
import threading
import time
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from launcher.errors import LaunchError
from launcher.redaction import redacted
from launcher.reporting.console import PipeSafeConsole, sentence
from launcher.run_folder.folder import RunFolder
from launcher.run_folder.lock import owner_of
from launcher.run_folder.state import RunState, run_state
from launcher.run_page.events import WARNINGS
from launcher.run_page.follow import Follower
from launcher.run_page.numbers import NO_CURVES, Numbers, is_number, numbers_of
from launcher.text import counted, duration, share

BLOCKS = "▁▂▃▄▅▆▇█"
WIDTHS = (60, 200)
EVENTS = 5
COLOURS = {"running": "green", "done": "bold green", "silent": "yellow", "not_started": "yellow", "requested": "yellow"}
ASK_SECONDS = 10.0
"""From one look at the owner of the folder to the next: an owner on another node is looked at for as long."""


class Watch:
    """A run folder, looked at again and again. Raises LaunchError for a folder that is no run."""

    def __init__(self, folder: Path) -> None:
        if not (folder / "config.yaml").is_file():
            raise LaunchError(f"{folder}: expected a run folder with config.yaml, got none; check the path")
        self.folder = folder
        self.follower = Follower(folder / "metrics.jsonl")
        self._run = RunFolder(folder)
        self._owner: str | None = None
        self._asking = threading.Lock()
        self._asked_at = 0.0

    def ask(self) -> None:
        """Look whether a process owns the folder."""
        with self._asking:
            self._owner = owner_of(self.folder)
            self._asked_at = time.monotonic()

    def ask_beside(self) -> None:
        """The same on a thread, if it is time: an owner on another node takes ten seconds."""
        due = time.monotonic() - self._asked_at >= ASK_SECONDS or not (self.folder / "lock").exists()
        if due and not self._asking.locked():
            threading.Thread(target=self.ask, name="owner", daemon=True).start()

    def look(self) -> RunState:
        """Read what is new; the state of the run."""
        owner = self._owner
        self.follower.look()
        return run_state(self._run, self.follower.lines, owner)


def run(arguments: argparse.Namespace) -> int:
    """Show the run until it ends. Ctrl-C ends the display, not the run."""
    watch, console = Watch(Path(arguments.run)), PipeSafeConsole()
    watch.ask()
    state = watch.look()
    if arguments.once or not console.is_terminal or not state.is_running:
        console.print(screen(watch, state, width_of(console)), soft_wrap=True)
        if arguments.once or not state.is_running:
            return 0
    try:
        _follow(watch, state, arguments.seconds, console)
    except KeyboardInterrupt:
        console.print("the display has ended; the run goes on", markup=False, highlight=False)
    return 0


def _follow(watch: Watch, state: RunState, seconds: float, console: Console) -> None:
    """Show the run again and again; without a terminal, print its state once it has ended."""
    if not console.is_terminal:
        while state.is_running:
            time.sleep(seconds)
            watch.ask_beside()
            state = watch.look()
        console.print(screen(watch, state, width_of(console)), soft_wrap=True)
        return
    with Live(screen(watch, state, width_of(console)), console=console, auto_refresh=False, vertical_overflow="crop") as live:
        while state.is_running:
            time.sleep(seconds)
            watch.ask_beside()
            state = watch.look()
            live.update(screen(watch, state, width_of(console)), refresh=True)


def width_of(console: Console) -> int:
    """The columns that are used: those of the terminal, within WIDTHS."""
    return max(WIDTHS[0], min(WIDTHS[1], console.width))


def screen(watch: Watch, state: RunState, width: int) -> Group:
    """Everything that is shown, in `width` columns."""
    last, heldout = watch.follower.train, watch.follower.heldout
    head = Text(f"{watch.folder.absolute().name}: {redacted(state.sentence)}", COLOURS.get(state.kind, "bold red"), overflow="fold")
    parts: list[Any] = [head]
    if is_number(last.get("updates")) and is_number(last.get("update")):
        parts.append(_bar(last, width, state.is_running))
    if len(watch.follower.losses) > 1:
        parts.append(Text(f"loss {sparkline(watch.follower.losses, width - 5)}"))
    table = _table(last, heldout, width)
    if table.row_count:
        parts.append(table)
    elif state.is_running:
        parts.append(Text("no train line yet"))
    parts += _events(watch.follower, width)
    return Group(*parts)


def sparkline(values: list[float], width: int) -> str:
    """Values as blocks of eight heights, one per column: the mean of each stretch, from the lowest to the highest."""
    count = min(width, len(values))
    stretches = [values[n * len(values) // count : (n + 1) * len(values) // count] for n in range(count)]
    means = [sum(stretch) / len(stretch) for stretch in stretches]
    low, high = min(means), max(means)
    return "".join(BLOCKS[round((mean - low) / (high - low) * (len(BLOCKS) - 1))] if high > low else BLOCKS[0] for mean in means)


def _bar(last: dict[str, Any], width: int, running: bool) -> Text:
    """Progress as a bar and in numbers."""
    part = min(1.0, max(0.0, last["update"] / max(last["updates"], 1)))
    told = f"update {last['update']:,}/{last['updates']:,} ({share(part)})"
    if is_number(last.get("tokens")):
        told += f", {last['tokens']:,} tokens"
    if isinstance(last.get("phase"), str):
        told += f", phase {last['phase']}"
    if running and is_number(last.get("seconds_left")):
        told += f", {duration(last['seconds_left'])} left"
    columns = max(0, min(40, width - len(told) - 1))
    full = round(part * columns)
    text = Text("━" * full, "green")
    text.append("─" * (columns - full), "dim")
    return text.append(f"{' ' * (columns > 0)}{told}", "default")


def _table(last: dict[str, Any], heldout: list[dict[str, Any]], width: int) -> Table:
    """Every number of the newest lines, with the one before for held-out scores; in two columns of pairs where there is room."""
    rows = []
    for one in numbers_of([last], heldout[-1:]):
        values = [line[one.key] for line in ([last] if one.kind == "train" else heldout) if is_number(line.get(one.key))]
        if values and one.key not in NO_CURVES and (one.part != "health" or values[-1]):
            before = f" (before: {one.form(values[-2])})" if len(values) > 1 else ""
            rows.append((_short_title(one), f"{one.form(values[-1])}{before}"))
    columns = 2 if width >= 110 else 1
    table = Table(box=box.SIMPLE, show_header=False, pad_edge=False, padding=(0, 2, 0, 0), width=width)
    for _ in range(columns):
        table.add_column(style="dim", overflow="fold", ratio=3)
        table.add_column(overflow="fold", ratio=2)
    half = -(-len(rows) // columns)
    for n in range(half):
        pairs = [rows[n + half * column] if n + half * column < len(rows) else ("", "") for column in range(columns)]
        table.add_row(*(Text(cell) for pair in pairs for cell in pair))
    return table


def _short_title(one: Numbers) -> str:
    """The title within a row: KL stays KL."""
    return one.title if one.title[1:2].isupper() else one.title[:1].lower() + one.title[1:]


def _events(follower: Follower, width: int) -> list[Text]:
    """The newest events, and how many warnings there were."""
    warnings = [line for line in follower.events if line.get("event") in WARNINGS]
    texts = []
    if warnings:
        texts.append(Text(f"{counted(len(warnings), 'warning')}, the last at update {warnings[-1]['update']:,}", "yellow"))
    for line in list(follower.events)[-EVENTS:]:
        message = " ".join(str(redacted(sentence(line))).split())
        told = Text(f"{line['update']:>8,}  {message}", overflow="ellipsis", no_wrap=True)
        told.truncate(width, overflow="ellipsis")
        told.stylize("yellow" if line.get("event") in WARNINGS else "dim")
        texts.append(told)
    return texts
