"""The report lines that W&B has received, and its warnings. Imports nothing of W&B."""

import re
from collections import deque

KINDS = ("train", "heldout", "checkpoint")
NOT_SAID = re.compile(r"^(\x1b\[\d+m)*wandb\S*:\s*(\S*WARNING\S*|\S*ERROR\S*)?\s*|\s*Use `wandb sync`.*")
"""W&B's own heading, and an advice that does not hold: `wandb sync` passes over runs that began online."""


class Warnings:
    """Warnings and errors of W&B, from any of its threads: W&B sees a logger, the reports see a queue."""

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
    """The report lines that W&B has got, so that a resumed run sends none twice."""

    def __init__(self) -> None:
        self._last = -1
        self._held: set[tuple[str, int]] = set()

    def know(self, update: int) -> None:
        """W&B has got everything up to this update and nothing later."""
        self._last = update

    def hold(self, lines: set[tuple[str, int]]) -> None:
        """W&B has got these lines: kind and update."""
        self._held |= lines

    def is_new(self, kind: str, update: int) -> bool:
        """True if W&B has not received this line yet."""
        return update > self._last and (kind, update) not in self._held

    def missing(self, held: set[tuple[str, int]]) -> list[int]:
        """Updates of the lines that W&B has got, but that are not among those its files hold."""
        return sorted({update for _, update in self._held - held})
