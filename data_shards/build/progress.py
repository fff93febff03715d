"""Progress of a build: counts and speed, for a listener."""

import time
from collections.abc import Callable
from dataclasses import dataclass

PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class BuildProgress:
    """The progress of a build. bytes_total is None if the size of the sources is unknown before reading.

    documents and tokens count what is read and tokenised, by earlier, killed calls too. tokens_per_second is this call's.
    """

    documents: int
    tokens: int
    shards: int
    bytes_read: int
    bytes_total: int | None
    seconds: float
    tokens_per_second: float


class ProgressClock:
    """Calls a listener at most twice a second."""

    def __init__(self, listener: Callable[[BuildProgress], None] | None, bytes_total: int | None) -> None:
        self.durable_tokens = 0
        """Tokens of an earlier call."""
        self.fresh_tokens = 0
        self._listener = listener
        self._bytes_total = bytes_total
        self._began = self._reported = time.monotonic()
        self._fresh_since: float | None = None

    def start_fresh(self) -> None:
        """Documents are tokenised from now on. Later calls change nothing."""
        if self._fresh_since is None:
            self._fresh_since = time.monotonic()

    def report(self, documents: int, shards: int, bytes_read: int, last: bool = False) -> None:
        """Call the listener, if it is time."""
        now = time.monotonic()
        if self._listener is None or not (last or now - self._reported >= PROGRESS_SECONDS):
            return
        self._reported = now
        seconds = max(now - (self._fresh_since or now), 1e-9)
        tokens = self.durable_tokens + self.fresh_tokens
        rate = self.fresh_tokens / seconds
        self._listener(BuildProgress(documents, tokens, shards, bytes_read, self._bytes_total, now - self._began, rate))
