"""curves.png of a run, drawn again and again while it goes on, on a thread of its own. Nothing here stops or delays the run."""

import time
from collections.abc import Callable
from pathlib import Path

from launcher.reporting.background import BackgroundQueue

EVERY_SECONDS = 30.0  # at most so often
MOST_SHARE = 0.01  # of the time is spent on drawing: a long run's picture is drawn less often
FINISH_SECONDS = 20.0  # for the last picture


class LiveCurves:
    """The picture of one run folder. matplotlib is imported on the thread, at the first picture (0.4 s)."""

    def __init__(self, folder: Path, failed: Callable[[Exception], None]) -> None:
        """failed: called on the thread with the error of a picture that could not be drawn or written."""
        self._folder = folder
        self._queue = BackgroundQueue("curves", failed)
        self._due_at = time.monotonic() + EVERY_SECONDS

    def reported(self) -> None:
        """Draw, if it is time: metrics.jsonl has a new line."""
        if time.monotonic() >= self._due_at:
            self._due_at = float("inf")  # until this one is drawn
            self._queue.call(self._draw)

    def finish(self) -> bool:
        """Draw the last picture. False if that takes longer than FINISH_SECONDS."""
        return self._queue.call(self._draw) and self._queue.finish(FINISH_SECONDS)

    def _draw(self) -> None:
        began = time.monotonic()
        try:
            from launcher.reporting.curves import draw_run  # noqa: PLC0415

            draw_run(self._folder)
        finally:
            now = time.monotonic()
            self._due_at = now + max(EVERY_SECONDS, (now - began) / MOST_SHARE)
