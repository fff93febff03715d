"""metrics.jsonl of a run that goes on, read line by line as it grows. Reads only what is new."""

import json
import os
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

KEPT = 4000
"""Losses and events kept for the display; of more losses, every second one is dropped."""


class Follower:
    """The newest numbers of a metrics.jsonl. `look` reads what was appended, and all of it where the file was replaced."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._begin()

    def _begin(self) -> None:
        self._offset = 0
        self._file: tuple[int, int] | None = None
        self._rest = b""
        self._skip = 1
        self._seen = 0
        self.train: dict[str, Any] = {}
        """The newest train line, with the last value of each number: a term may be absent from a line."""
        self.heldout: list[dict[str, Any]] = []
        self.events: deque[dict[str, Any]] = deque(maxlen=KEPT)
        self.losses: list[float] = []
        self.newest = 0

    def look(self) -> None:
        """Read the new lines. A file that is not there has none; a line that is no report line is passed over."""
        with suppress(OSError), self._path.open("rb") as file:
            status = os.fstat(file.fileno())
            if self._file != (status.st_dev, status.st_ino) or status.st_size < self._offset:
                self._begin()
                self._file = (status.st_dev, status.st_ino)
            file.seek(self._offset)
            data = self._rest + file.read()
            self._offset = file.tell()
            *lines, self._rest = data.split(b"\n")
            for line in lines:
                with suppress(ValueError, RecursionError):
                    self._take(json.loads(line))

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Lines that tell the state of the run: its events, and the newest train line."""
        return [*self.events, *([self.train] if self.train else [])]

    def _take(self, line: Any) -> None:
        if not isinstance(line, dict) or not isinstance(line.get("update"), int):
            return
        self.newest = max(self.newest, line["update"])
        if line.get("kind") == "train":
            self.train |= line
            self._seen += 1
            if self._seen % self._skip == 0 and isinstance(line.get("loss"), int | float):
                self.losses.append(float(line["loss"]))
            if len(self.losses) > KEPT:
                self.losses, self._skip = self.losses[::2], self._skip * 2
        elif line.get("kind") == "heldout":
            self.heldout = [*self.heldout[-1:], line]
        elif line.get("kind") == "event":
            self.events.append(line)
