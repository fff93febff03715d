"""The events of a run as rows of a table: warnings apart from the rest, checkpoints as one sentence."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

from launcher.run_page.numbers import is_number
from launcher.text import counted, size

WARNINGS = (
    *("checkpoint_failed", "skipped_update", "loss_spike", "rolled_back", "skipped_shard", "straggler", "stopped"),
    *("export_failed", "page_failed", "alert"),
)
MOST_WARNINGS, MOST_EVENTS = 40, 30
Row = list[str]
"""update, time (UTC), event, message."""


def event_rows(events: Sequence[dict[str, Any]]) -> tuple[list[Row], list[Row]]:
    """(warnings, other events but checkpoints): of many, the first few and the newest, with a row that says how many are left out."""
    warnings = [line for line in events if line.get("event") in WARNINGS]
    others = [line for line in events if line.get("event") not in (*WARNINGS, "checkpoint")]
    return _rows(warnings, MOST_WARNINGS), _rows(others, MOST_EVENTS)


def saving(events: Iterable[dict[str, Any]]) -> str:
    """The number of checkpoints, the size of the newest and the mean time; empty where there is none."""
    written = [line for line in events if line.get("event") == "checkpoint"]
    if not written:
        return ""
    last = written[-1]
    text = f"{counted(len(written), 'checkpoint')} written, the newest after update {last['update']:,}"
    if is_number(last.get("bytes")):
        text += f", {size(last['bytes'])}"
    seconds = [line["seconds"] for line in written if is_number(line.get("seconds"))]
    if seconds:
        text += f", {sum(seconds) / len(seconds):.1f} s each on average"
    return f"{text}."


def moment(seconds: Any) -> str:
    """A time stamp as UTC; empty where there is none that makes sense."""
    if not is_number(seconds) or not 0 < seconds < 1e11:
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds))


def _rows(lines: Sequence[dict[str, Any]], most: int) -> list[Row]:
    rows = [_row(line) for line in lines]
    if len(rows) <= most:
        return rows
    head = most // 4
    return [*rows[:head], ["", "", f"{len(rows) - most:,} more", "left out here; metrics.jsonl has them"], *rows[head - most :]]


def _row(line: dict[str, Any]) -> Row:
    return [f"{line['update']:,}", moment(line.get("time")), str(line.get("event", "")).replace("_", " "), str(line.get("message", ""))]
