"""metrics.jsonl: a run's numbers as whole lines, the truth that everything else is made from.

`AppendedFile` writes it, through full disks and kills; `read` and `trim` take it up again. Knows nothing of what the numbers mean.
"""

import json
import math
import os
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from launcher.errors import LaunchError
from stillhouse.files import write_atomically

METRICS = "metrics.jsonl"
TAIL_BYTES = 1 << 16  # some hundred lines
KEPT_LINES = 100_000  # lines kept in memory while the disk is full


class AppendedFile:
    """A file of whole lines. A line is in it whole or not at all; what did not fit is kept and written before the next."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._waiting: deque[str] = deque(maxlen=KEPT_LINES)
        self._descriptor = self._open()

    def append(self, text: str) -> None:
        """Add whole lines, in the order they came. OSError leaves them waiting and the file without half of one."""
        self._waiting.append(text)
        self._follow()
        while self._waiting:
            before = os.fstat(self._descriptor).st_size
            data = self._waiting[0].encode()
            try:
                while data:
                    data = data[os.write(self._descriptor, data) :]
            except OSError:
                os.ftruncate(self._descriptor, before)
                raise
            self._waiting.popleft()

    def close(self) -> None:
        """Close the file; idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        """A process killed while it wrote leaves half a line, which the next would grow into: cut off here."""
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        end = os.fstat(descriptor).st_size
        while end and os.pread(descriptor, 1, end - 1) != b"\n":
            end -= 1
        os.ftruncate(descriptor, end)
        return descriptor

    def _follow(self) -> None:
        """`trim` puts another file in the place of this one: go on in that. One that was removed is still to be had: written again."""
        if not self.path.exists():
            write_atomically(self.path, os.pread(self._descriptor, os.fstat(self._descriptor).st_size, 0).decode(), sync=False)
        if not (self.path.exists() and os.path.samestat(os.stat(self.path), os.fstat(self._descriptor))):
            replaced, self._descriptor = self._descriptor, self._open()
            os.close(replaced)


def read(metrics: Path) -> list[dict[str, Any]]:
    """Every line of a metrics.jsonl, oldest first. A last line cut off by a kill is left out; LaunchError for any other damage."""
    lines = metrics.read_bytes().split(b"\n")
    values = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            value = json.loads(line.decode())
            if not isinstance(value, dict) or "kind" not in value or not isinstance(value.get("update"), int):
                raise ValueError("no kind or no update")
        except (ValueError, RecursionError) as error:
            if number == len(lines):  # no newline after it: torn
                break
            raise LaunchError(f"{metrics}: line {number}: expected a report line, got {error}; repair or remove the line") from None
        values.append(value)
    return values


def last_train_line(folder: Path) -> dict[str, Any] | None:
    """The newest whole train line of a run folder, from the file's end; None where there is none (yet)."""
    try:
        with (folder / METRICS).open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
            lines = file.read().split(b"\n")[:-1]
    except FileNotFoundError:
        return None
    for line in reversed(lines):
        with suppress(ValueError, RecursionError):  # the first one may be the end of a longer line
            values = json.loads(line)
            if isinstance(values, dict) and values.get("kind") == "train":
                return values
    return None


def lost_lines(folder: Path, update: int, every: int) -> str:
    """A message if metrics.jsonl ends before the checkpoint of an update, otherwise empty. every: updates from line to line."""
    last = last_train_line(folder)
    known, due = int(last["update"]) if last is not None else 0, update // every * every
    return f"; metrics.jsonl has lost the lines of updates {known + 1} to {due}, which cannot be written again" if known < due else ""


def trim(metrics: Path, update: int) -> int:
    """Drop the lines after `update`, where a run goes on from a checkpoint made then; how many there were."""
    if not metrics.exists():
        return 0
    before = read(metrics)
    kept = [values for values in before if values["update"] <= update]
    write_atomically(metrics, "".join(json_line(values) for values in kept))
    return len(before) - len(kept)


def json_line(values: Mapping[str, Any]) -> str:
    """JSON has no NaN or infinity: they become null."""
    plain = {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()}
    return json.dumps(plain, ensure_ascii=False) + "\n"
