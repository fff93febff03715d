"""Failures that other libraries report in their own words: memory that ran out, a connection to another rank that is lost."""

import re

import torch.distributed as dist

from launcher.text import size

ALLOCATION = re.compile(r"[Tt]ried to allocate ([\d.]+) ?([KMGT]i?B|bytes)")  # torch
NUMPY_ALLOCATION = re.compile(r"allocate ([\d.]+) ?([KMGT]i?B|bytes)")
CONNECTION_WORDS = ("closed by peer", "Connection reset", "Broken pipe", "Timed out waiting", "Connection refused", "Socket closed", "gloo")


def memory_asked_for(error: BaseException) -> str | None:
    """The size of the allocation that failed, as text; None for other errors."""
    if isinstance(error, MemoryError):
        match = NUMPY_ALLOCATION.search(str(error))
        return f"{match[1]} {match[2]}" if match else "more than there is"
    match = ALLOCATION.search(str(error))
    if match is None:
        return None
    return size(int(match[1])) if match[2] == "bytes" else f"{match[1]} {match[2]}"


def is_lost_connection(error: BaseException) -> bool:
    """True where a collective failed because another rank, or the network to it, is gone."""
    if isinstance(error, dist.DistError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in CONNECTION_WORDS)
