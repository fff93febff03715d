"""Signals before a run catches them itself (launcher/process/signals.py): one line instead of a traceback.

Imported first by the doors, so it imports only what Python has loaded anyway.
"""

import os
import signal
from contextlib import suppress
from types import FrameType

NAMES = ("SIGINT", "SIGTERM", "SIGUSR1", "SIGUSR2", "SIGHUP", "SIGXCPU")
AGAIN_SECONDS = 0.05


def catch() -> None:
    """From now on a signal ends this process with one line. A signal that is ignored, as SIGHUP is under nohup, stays ignored."""
    for name in NAMES:
        number = getattr(signal, name)
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, _end)


def release() -> None:
    """Give the signals back to Python: Ctrl-C is KeyboardInterrupt again, so that what follows can clean up."""
    for name in NAMES:
        number = getattr(signal, name)
        if signal.getsignal(number) is _end:
            signal.signal(number, interrupt if name == "SIGINT" else signal.SIG_DFL)


def interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as Python does. It only prints what a `__del__` raises, so there an alarm follows a moment later."""
    if frame is not None and frame.f_code.co_name == "__del__":
        signal.signal(signal.SIGALRM, interrupt)
        signal.setitimer(signal.ITIMER_REAL, AGAIN_SECONDS)
        return
    raise KeyboardInterrupt


def _end(number: int, frame: FrameType | None) -> None:
    """Say so on rank 0 and end: by exit code 130 for Ctrl-C, by the signal itself for others, as batch scripts expect it."""
    if os.environ.get("RANK", "0") == "0":
        with suppress(OSError):
            os.write(2, f"stillhouse: {signal.Signals(number).name} while starting: stopped, nothing is lost\n".encode())
    if number == signal.SIGINT:
        os._exit(128 + number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
