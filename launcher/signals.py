"""Signals become a wish to stop, never a stop in the middle: the loop asks between updates, saves, and leaves with a code of its own."""

import os
import signal
from enum import IntEnum
from types import FrameType

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2, signal.SIGHUP)


class Exit(IntEnum):
    """How a run ends."""

    DONE = 0
    FAILED = 1
    BAD_INPUT = 2
    NOT_FINITE = 3
    """Too many updates in a row had a loss or gradient that is not finite."""
    OUT_OF_MEMORY = 4
    SAVED_AFTER_SIGNAL = 75
    """Stopped by a signal after saving: starting again continues (EX_TEMPFAIL; the batch script requeues on it)."""
    RANK_LOST = 76
    """Another rank died, hangs, or cannot be reached; starting again continues from the last checkpoint."""


class StopFlag:
    """Remembers the first signal. A second Ctrl-C leaves at once, without saving."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._interrupted = False

    @classmethod
    def install(cls) -> "StopFlag":
        """Catch these signals from now on; under nohup SIGHUP stays without effect."""
        flag = cls()
        for number in CAUGHT:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, flag._caught)
        return flag

    @property
    def requested(self) -> str | None:
        """The name of the signal that asked to stop, if one did."""
        return self.signal.name if self.signal is not None else None

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted:
                os._exit(128 + number)
            self._interrupted = True
        self.signal = self.signal or signal.Signals(number)
