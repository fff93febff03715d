"""Host memory that a training process keeps between tensors, instead of giving it back to the system.

glibc gives a freed block of a few MB back at once. The next tensor of that size then costs a page fault for each 4 KiB, and every update
makes the same tensors again. With higher limits the process keeps the block for the next tensor.

The peak of an update stays nearly the same, and the process holds it between updates. Figures: docs/measurements.md.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
LARGEST_BLOCK = 256 << 20
"""Bytes. A larger block is still given back: its page faults are a small share of the time of the products that fill it."""
OLD_LARGEST_BLOCK = 32 << 20
"""The largest value that glibc before 2.35 takes."""
LARGEST_FREE_TOP = 2**31 - 1
OWN_LARGEST_BLOCK, OWN_FREE_TOP = 32 << 20, 64 << 20
"""Bytes. glibc raises its limits to these by itself, once a process has freed blocks of 32 MB."""
VARIABLES = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")
"""A user who sets one of them has chosen already. `GLIBC_TUNABLES` with `glibc.malloc.` counts too."""


def keep() -> bool:
    """Keep freed memory in this process from now on. True if the C library takes the limits. Idempotent.

    False where the environment has limits of its own, and with other C libraries than glibc.
    """
    if not _may_choose():
        return False
    largest = _set(M_MMAP_THRESHOLD, LARGEST_BLOCK) or _set(M_MMAP_THRESHOLD, OLD_LARGEST_BLOCK)
    return largest and _set(M_TRIM_THRESHOLD, LARGEST_FREE_TOP)


def give_back() -> None:
    """Return free memory to the system now. `keep` stays in force."""
    if _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


@contextmanager
def as_by_default() -> Iterator[None]:
    """glibc's own limits meanwhile, after free memory was given back; then `keep` again. For comparisons."""
    if _may_choose():
        _set(M_MMAP_THRESHOLD, OWN_LARGEST_BLOCK)
        _set(M_TRIM_THRESHOLD, OWN_FREE_TOP)
        give_back()
    try:
        yield
    finally:
        keep()


def _may_choose() -> bool:
    """False where the user has chosen, or the C library is not glibc."""
    chosen = any(name in os.environ for name in VARIABLES) or "glibc.malloc." in os.environ.get("GLIBC_TUNABLES", "")
    return not chosen and _is_glibc()


def _set(parameter: int, value: int) -> bool:
    return _is_glibc() and bool(ctypes.CDLL(None).mallopt(parameter, value))


def _is_glibc() -> bool:
    return hasattr(ctypes.CDLL(None), "gnu_get_libc_version")
