"""A rank's progress in its run, readable from other threads: the update, its phase, and the seconds in that phase.

Every rank enters the same phases of an update in the same order. So the rank that others wait for has the lowest (update, step).
"""

import time
from dataclasses import dataclass

BUSY = ("data", "teacher", "forward", "head")  # phases in which a rank works alone, except for sharded weights; they show how slow it is
WAITING = ("counting", "backward", "step", "agreeing")  # phases that hold a collective
BUILDING = "building the models"  # once; long for large models, which are read, and for narrower ones, which are fitted
WRITING = "writing"  # rank 0 writes to a disk, which may take long; the others wait for it


@dataclass(frozen=True)
class ProgressPoint:
    """A point of a run. update: the current one, from 1; step: number of its phases entered so far; seconds: time in this phase."""

    update: int
    step: int
    phase: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.phase} of update {self.update}" if self.update else self.phase


class RankProgress:
    """The progress of one rank. The training thread writes it; any thread reads it."""

    def __init__(self) -> None:
        self._point = (0, 0, "starting", time.monotonic())
        self.busy: dict[str, float] = {}
        """Seconds in each phase since the last `take_busy`."""

    @property
    def now(self) -> ProgressPoint:
        update, step, phase, since = self._point
        return ProgressPoint(update, step, phase, time.monotonic() - since)

    def begin(self, update: int, phase: str) -> None:
        """A new update has begun, with this phase."""
        self._count()
        self._point = (update, 0, phase, time.monotonic())

    def enter(self, phase: str) -> None:
        """The next phase of the same update."""
        self._count()
        update, step, _, _ = self._point
        self._point = (update, step + 1, phase, time.monotonic())

    def touch(self) -> None:
        """Still in the same phase, and alive: it is a long one, and part of it is done."""
        self._count()
        self._point = (*self._point[:3], time.monotonic())

    def take_busy(self) -> dict[str, float]:
        """Seconds in each phase that a rank works in alone, since the last time."""
        taken = {phase: self.busy.get(phase, 0.0) for phase in BUSY}
        self.busy = {}
        return taken

    def _count(self) -> None:
        _, _, phase, since = self._point
        self.busy[phase] = self.busy.get(phase, 0.0) + time.monotonic() - since
