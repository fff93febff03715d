"""The steps of a start, as lines of rank 0: what happens now, and how long it took where it took a second or more."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from launcher.process.standard_streams import say

SHOWN_SECONDS = 1.0


@contextmanager
def step(name: str) -> Iterator[None]:
    """Print `name …` before, and `name: 3.2 s` after what happens inside."""
    first = os.environ.get("RANK", "0") == "0"
    started = time.monotonic()
    if first:
        say(f"{name} …")
    yield
    seconds = time.monotonic() - started
    if first and seconds >= SHOWN_SECONDS:
        say(f"{name}: {seconds:.1f} s")
