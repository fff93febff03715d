"""Signals as requests to stop. The loop checks for a request between updates, saves a checkpoint, and exits with a code of its own.

So does the end of the `deepspeed` command that started a rank. It hands no signal on, and its ranks would go on unseen.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from enum import IntEnum
from itertools import pairwise
from pathlib import Path
from types import FrameType

from launcher.process.standard_streams import say

CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU)
"""SIGUSR1 and SIGUSR2: a batch system's warning; SIGXCPU: the processor time of `ulimit -S -t` is used up, and a grace time left."""


class Exit(IntEnum):
    """The exit codes of a run."""

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
        self._answers = False
        self._speaks = False
        self._may_end = False
        self.done: int | None = None
        """Updates of the run so far; None before its loop."""
        self.updates: int | None = None
        """Updates of the whole run."""
        self.saved = 0
        """The update of the last checkpoint."""
        self.log: Path | None = None
        self._starters = tuple(starters())

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
        """The name of the signal that asked to stop, if one did; `orphaned` where what started this rank has ended."""
        if self.signal is not None:
            return self.signal.name
        gone = any(_parent(child) != parent for child, parent in pairwise((os.getpid(), *self._starters)))
        return "orphaned" if gone else None

    def answer(self, speaks: bool = True) -> None:
        """Answer every signal on stderr and in the log within a second, from a thread: the training thread may wait in a collective.

        speaks: print the answers, as rank 0 does for all ranks.
        """
        self._speaks = speaks
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        self._answers = True
        threading.Thread(target=self._answer, args=(reader,), name="signals", daemon=True).start()

    @contextmanager
    def ending_at_once(self) -> Iterator[None]:
        """Inside, a signal ends this process: the ranks wait for each other, and there is nothing to save yet. Needs `answer`."""
        self._may_end = True
        try:
            yield
        finally:
            self._may_end = False

    def _answer(self, reader: int) -> None:
        interrupts = 0
        while numbers := os.read(reader, 1):
            if numbers[0] not in tuple(CAUGHT):
                continue
            if self._may_end:
                self._tell(f"{signal.Signals(numbers[0]).name} while the ranks meet: stopped, nothing is lost")
                os._exit(128 + numbers[0])
            interrupts += numbers[0] == signal.SIGINT
            second = numbers[0] == signal.SIGINT and interrupts > 1
            self._tell(self.parting() if second else self.acknowledgement(signal.Signals(numbers[0])))
            if second:
                os._exit(128 + signal.SIGINT)

    def acknowledgement(self, number: signal.Signals) -> str:
        """The answer to a first signal: what happens next, and what a second Ctrl-C would lose."""
        if self.done is None:
            return f"{number.name}: the run ends after its first update, which is saved; a second Ctrl-C ends it now, and nothing is lost"
        if self.done == self.updates:
            return f"{number.name}: the last update is done, the run writes its student and ends; a second Ctrl-C ends it without"
        lost = f"loses {_updates(self.done - self.saved)}" if self.done > self.saved else "loses the update that is running"
        return f"{number.name}: update {self.done + 1:,} is finished and saved, then the run ends; a second Ctrl-C ends it now and {lost}"

    def parting(self) -> str:
        """The answer to a second Ctrl-C: what is lost."""
        if self.done is None:
            return "second Ctrl-C: the run ends before its first update; nothing is lost"
        lost = _updates(self.done - self.saved)
        return f"second Ctrl-C: the run ends without saving; {lost} after update {self.saved:,} lost; start again to continue from there"

    def _tell(self, text: str) -> None:
        if not self._speaks:
            return
        say(f"stillhouse: {text}", sys.stderr)
        if self.log is not None:
            with suppress(OSError), self.log.open("a", encoding="utf-8") as file:
                file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {text}\n")

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self._interrupted and not self._answers:
                os._exit(128 + number)
            self._interrupted = True
        self.signal = self.signal or signal.Signals(number)


def _updates(count: int) -> str:
    return f"{count:,} update{'' if count == 1 else 's'}"


def starters() -> Iterator[int]:
    """The processes of DeepSpeed's launcher that stand above this one: that of this host, then the `deepspeed` command itself.

    Nothing where something else started this rank, such as a shell, which a run may well outlive.
    """
    launch = os.getppid()
    if b"deepspeed.launcher.launch" in _words(launch):
        yield launch
        command = _parent(launch)
        if any(os.path.basename(word) in (b"deepspeed", b"deepspeed.launcher.runner") for word in _words(command)[:3]):
            yield command


def _words(pid: int) -> list[bytes]:
    """A process's command line; nothing where it cannot be seen."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def _parent(pid: int) -> int:
    """Its parent; 0 where it cannot be seen any more."""
    if pid == os.getpid():
        return os.getppid()
    try:
        return int(Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1])
    except OSError:
        return 0
