"""Writing a checkpoint while training goes on: the state is copied to the host, a thread does the rest.

Training waits for the copy alone. kd/checkpoint/checkpoint.py writes the files. A checkpoint is whole or absent in either case.
"""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from kd.checkpoint import checkpoint, on_disk
from kd.checkpoint.checkpoint import Held, State
from kd.checkpoint.on_disk import Progress


@dataclass(frozen=True)
class Written:
    """The outcome of writing one checkpoint. seconds: from its beginning to the last byte on the disk; error: "" if it is there."""

    update: int
    seconds: float
    bytes: int
    error: str


class BackgroundWriter:
    """One checkpoint at a time, on the rank that writes."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._written: Written | None = None

    def write(self, folder: Path, progress: Progress, state: State) -> None:
        """Copy the state and begin to write it. What was begun before must have been taken."""
        assert self._thread is None
        began = time.perf_counter()
        held = checkpoint.hold(state)
        self._thread = threading.Thread(target=self._store, args=(folder, progress, held, began), name="checkpoint")
        self._thread.start()

    def take(self, wait: bool) -> Written | None:
        """The outcome of the last one, once; None while it is being written (never if `wait`), or when there is none."""
        if self._thread is None or (self._thread.is_alive() and not wait):
            return None
        self._thread.join()
        self._thread = None
        return self._written

    def _store(self, folder: Path, progress: Progress, held: Held, began: float) -> None:
        size, failed = 0, ""
        try:
            size = on_disk.read(checkpoint.store(folder, progress, held)).bytes
        except Exception as error:  # a thread has nobody to raise to; the loop reports it and tries again
            failed = str(error) or repr(error)
        self._written = Written(progress.done, time.perf_counter() - began, size, failed)
