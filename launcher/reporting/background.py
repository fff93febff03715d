"""A queue of calls that a thread of its own makes, so that the caller never waits for them."""

import queue
import threading
from collections.abc import Callable
from typing import Any

MOST = 10_000  # calls that may wait; each holds one report line
END = None


class BackgroundQueue:
    """One call after the other, in the order in which they came. What a call raises is handed to `failed`, on the thread."""

    def __init__(self, name: str, failed: Callable[[Exception], None]) -> None:
        self._calls: queue.Queue[tuple[Callable[..., Any], tuple[Any, ...]] | None] = queue.Queue(MOST)
        self._failed = failed
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def call(self, action: Callable[..., Any], *arguments: Any) -> bool:
        """Add a call. False if the queue is full."""
        try:
            self._calls.put_nowait((action, arguments))
        except queue.Full:
            return False
        return True

    def finish(self, timeout_seconds: float) -> bool:
        """Wait for the calls that are queued. False if they take longer than that."""
        try:
            self._calls.put_nowait(END)
        except queue.Full:
            return False
        self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _work(self) -> None:
        while (call := self._calls.get()) is not END:
            action, arguments = call
            try:
                action(*arguments)
            except Exception as error:
                self._failed(error)
