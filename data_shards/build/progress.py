"""How far a build is, how fast, and how long it still takes."""

import time
from collections.abc import Callable
from dataclasses import dataclass

PROGRESS_SECONDS = 0.5


@dataclass(frozen=True)
class BuildProgress:
    """A build under way. bytes_total and seconds_left are None where the sources do not tell their size.

    documents and tokens count what is read and tokenised, that of an earlier, killed call included; tokens_per_second is this call's.
    """

    documents: int
    tokens: int
    shards: int
    bytes_read: int
    bytes_total: int | None
    seconds: float
    tokens_per_second: float
    seconds_left: float | None


class ProgressClock:
    """Tells a listener at most twice a second."""

    def __init__(self, listener: Callable[[BuildProgress], None] | None, bytes_total: int | None) -> None:
        self.durable_tokens = 0
        """Those that an earlier call left behind."""
        self.fresh_tokens = 0
        self._listener = listener
        self._bytes_total = bytes_total
        self._began = self._told = time.monotonic()
        self._fresh_from: tuple[float, int] | None = None

    def fresh(self, bytes_read: int) -> None:
        """From here on the documents have to be tokenised."""
        if self._fresh_from is None:
            self._fresh_from = (time.monotonic(), bytes_read)

    def tell(self, documents: int, shards: int, bytes_read: int, last: bool = False) -> None:
        """Call the listener, if it is time."""
        now = time.monotonic()
        if self._listener is None or not (last or now - self._told >= PROGRESS_SECONDS):
            return
        self._told = now
        since, already = self._fresh_from or (now, bytes_read)
        seconds = max(now - since, 1e-9)
        left = 0.0 if last else None
        if not last and self._bytes_total is not None and bytes_read > already:
            left = max(self._bytes_total - bytes_read, 0) / (bytes_read - already) * seconds
        tokens = self.durable_tokens + self.fresh_tokens
        rate = self.fresh_tokens / seconds
        self._listener(BuildProgress(documents, tokens, shards, bytes_read, self._bytes_total, now - self._began, rate, left))
