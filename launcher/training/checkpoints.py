"""Checkpoints of a run: written at once or in the background, tried again after a failure. Old ones are removed last.

Every rank has one and makes the same calls. Rank 0 alone writes, and all ranks get the result.
"""

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from kd.checkpoint import checkpoint, on_disk
from kd.checkpoint.background_writer import BackgroundWriter, Written
from kd.checkpoint.checkpoint import State
from kd.checkpoint.on_disk import Progress
from kd.distributed import process_group
from kd.training.settings import CheckpointSettings
from kd.training.trainer import Trainer
from launcher.text import size

RETRY_SECONDS = 60.0  # after a checkpoint that could not be written


class CheckpointSaver:
    """A run's checkpoints on one rank. saved: the last update that is safe on the disk."""

    def __init__(self, folder: Path, settings: CheckpointSettings, saved: int = -1) -> None:
        self.folder = folder
        self.settings = settings
        self.saved = saved
        self._writer = BackgroundWriter()
        self._under_way: int | None = None
        self._began_at = time.monotonic()
        self._retry_at: float | None = None
        self._paused = 0.0
        self._taken: Written | None = None

    @property
    def is_due(self) -> bool:
        """True if it is time to save. Only rank 0's value counts; the ranks then agree on it."""
        now, minutes = time.monotonic(), self.settings.every_minutes
        if self._under_way is not None:
            return False
        return (minutes is not None and now - self._began_at >= 60 * minutes) or (self._retry_at is not None and now >= self._retry_at)

    def begin(self, trainer: Trainer, facts: dict[str, Any], wait: bool) -> list[Written]:
        """Save the trainer as it is; what has ended meanwhile. Collective. wait: afterwards `saved` is its update, unless that failed."""
        ended = self.wait()
        if trainer.done == self.saved:
            return ended
        self._began_at = time.monotonic()
        self._retry_at = None
        started = time.perf_counter()
        if self.settings.asynchronous and not wait:
            failed = trainer.save(self.folder, facts, self._write_beside)
            self._paused = time.perf_counter() - started
            self._under_way = trainer.done
            return [*ended, *([self._end(Written(trainer.done, self._paused, 0, failed))] if failed else [])]
        sizes: list[int] = []

        def write(folder: Path, progress: Progress, state: State) -> None:
            self._see_folder()
            sizes.append(on_disk.read(checkpoint.write(folder, progress, state)).bytes)

        failed = trainer.save(self.folder, facts, write)
        self._paused = time.perf_counter() - started
        return [*ended, self._end(Written(trainer.done, self._paused, sum(sizes), failed or ""))]

    def poll(self) -> bool:
        """True if the checkpoint under way has ended. Only rank 0's value counts; the ranks agree on it and call `finished`."""
        self._taken = self._writer.take(wait=False) if self._under_way is not None and process_group.rank() == 0 else None
        return self._taken is not None

    def wait(self) -> list[Written]:
        """Wait for the checkpoint under way; its outcome. Collective."""
        if self._under_way is None:
            return []
        return [self._shared(self._writer.take(wait=True) if process_group.rank() == 0 else None)]

    def finished(self) -> list[Written]:
        """The same for one that `poll` found ended. Collective."""
        return [self._shared(self._taken)]

    def close(self) -> None:
        """Let what is being written come to its end."""
        self._writer.take(wait=True)

    def sentence(self, written: Written) -> tuple[str, str, dict[str, float]]:
        """(event, message, numbers) of a checkpoint's end."""
        if written.error:
            again = "" if self._retry_at is None else f", the next try is within {RETRY_SECONDS:.0f} s"
            text = f"checkpoint after update {written.update} not written ({written.error}); the last good one is kept{again}"
            return "checkpoint_failed", text, {}
        paused = f"; training paused {self._paused:.2f} s" if self.settings.asynchronous else ""
        text = f"checkpoint after update {written.update} written and read back in {written.seconds:.1f} s, {size(written.bytes)}{paused}"
        numbers = {"seconds": round(written.seconds, 3), "bytes": written.bytes, "paused_seconds": round(self._paused, 3)}
        return "checkpoint", text, numbers

    def _write_beside(self, folder: Path, progress: Progress, state: State) -> None:
        self._see_folder()
        self._writer.write(folder, progress, state)

    def _see_folder(self) -> None:
        """A folder that has vanished (a disk that is no longer mounted) is not made anew in another place."""
        if not self.folder.is_dir():
            raise FileNotFoundError(f"{self.folder} is not there")

    def _shared(self, written: Written | None) -> Written:
        """Rank 0's, on every rank."""
        text = process_group.from_rank_zero(json.dumps(asdict(written)) if written is not None else "")
        return self._end(Written(**json.loads(text)))

    def _end(self, written: Written) -> Written:
        self._under_way = None
        if written.error:
            self._retry_at = time.monotonic() + RETRY_SECONDS
            return written
        self.saved = max(self.saved, written.update)
        if process_group.rank() == 0:  # the new one has been read back: only now may older ones go
            on_disk.prune(self.folder, self.settings.keep_last, self.settings.keep_best)
        return written
