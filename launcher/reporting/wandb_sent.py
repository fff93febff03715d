"""What W&B has got of a run, and what it complains of. Knows nothing of W&B itself."""

import json
import re
from collections import deque
from pathlib import Path

from stillhouse.files import write_atomically

KINDS = ("train", "heldout")
NOT_SAID = re.compile(r"^(\x1b\[\d+m)*wandb\S*:\s*(\S*WARNING\S*|\S*ERROR\S*)?\s*|\s*Use `wandb sync`.*")
"""W&B's own heading, and an advice that does not hold: `wandb sync` passes over runs that began online."""


class Warnings:
    """What W&B has to say besides good news, from any of its threads, instead of on stderr: a logger to it, a queue to us."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self._new: deque[str] = deque()

    def info(self, text: str) -> None:
        """Good news."""

    def warning(self, text: str) -> None:
        """Keep it, once."""
        text = NOT_SAID.sub("", text)
        if text not in self.seen:
            self.seen.add(text)
            self._new.append(text)

    error = warning

    def take(self) -> list[str]:
        """Those that are new."""
        return [self._new.popleft() for _ in range(len(self._new))]

    def clear(self) -> None:
        """Forget all."""
        self.seen.clear()
        self._new.clear()


class Sent:
    """The last update of each kind that W&B has got, in a small file: a run that goes on from an earlier checkpoint repeats none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        try:
            self._last: dict[str, int] = {kind: int(update) for kind, update in json.loads(path.read_text(encoding="utf-8")).items()}
        except (OSError, ValueError, TypeError, AttributeError):
            self._last = {}
        self._kept = dict(self._last)

    def know(self, update: int) -> None:
        """W&B has got everything up to this update and nothing later."""
        self._last = dict.fromkeys(KINDS, update)

    def is_new(self, kind: str, update: int) -> bool:
        """Whether W&B has not got this line yet."""
        return update > self._last.get(kind, -1)

    def note(self, kind: str, update: int) -> None:
        """W&B has got this line, too."""
        self._last[kind] = update

    def keep(self) -> None:
        """Into the file, where there is news. A power cut may cost it, a kill may not."""
        if self._last != self._kept:
            write_atomically(self._path, json.dumps(self._last) + "\n", sync=False)
            self._kept = dict(self._last)
