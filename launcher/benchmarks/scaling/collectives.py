"""Times of collectives: which, in which phase of an update, how many bytes, from when to when."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from kd.distributed.rank_progress import RankProgress

NAMES = (
    *("all_reduce", "broadcast", "reduce", "barrier", "all_gather", "all_gather_into_tensor"),
    *("reduce_scatter", "reduce_scatter_tensor", "all_to_all_single"),
)
"""Functions of torch.distributed. DeepSpeed and this project call no others in an update."""


@dataclass(frozen=True)
class Call:
    """One collective of one rank. size: bytes of its largest argument. start, end: seconds of a clock that a host's processes share."""

    name: str
    phase: str
    size: int
    start: float
    end: float


class Watch:
    """Lists the collectives of this process while it is `on`. Each is waited for, so nothing overlaps with it."""

    def __init__(self, progress: RankProgress) -> None:
        self.on = False
        self.calls: list[Call] = []
        self._progress = progress

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Put the watch around torch's functions. Enter it before the process group starts: DeepSpeed keeps references to some."""
        before = {name: getattr(dist, name) for name in NAMES}
        for name, function in before.items():
            setattr(dist, name, self._watched(name, function))
        try:
            yield
        finally:
            for name, function in before.items():
                setattr(dist, name, function)

    def _watched(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(function)
        def call(*arguments: Any, **keywords: Any) -> Any:
            if not self.on:
                return function(*arguments, **keywords)
            synchronise()
            start = time.monotonic()
            work = function(*arguments, **keywords)
            if work is not None:
                work.wait()
            synchronise()
            size = max((_bytes(value) for value in (*arguments, *keywords.values())), default=0)
            self.calls.append(Call(name, self._progress.now.phase, size, start, time.monotonic()))
            return work

        return call


def synchronise() -> None:
    """Wait until this process's GPU is done, if it has one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Cost:
    """The collectives of one kind in an update. moved, waited: seconds; a rank waits until the last one comes, then bytes move."""

    name: str
    phase: str
    calls: float
    size: float
    moved: float
    waited: float


def costs(ranks: Sequence[Sequence[Call]], updates: int) -> list[Cost]:
    """Costs per update, from the calls of all ranks, in order of phase and name. waited: the mean over ranks.

    Raises ValueError if the ranks called different collectives.
    """
    kinds: dict[tuple[str, str], list[tuple[int, float, float]]] = {}
    for calls in zip(*ranks, strict=True):
        if len({call.name for call in calls}) > 1:
            raise ValueError(f"expected the same collective on all ranks, got {', '.join(call.name for call in calls)}")
        last = max(call.start for call in calls)
        moved = max(0.0, max(call.end for call in calls) - last)
        waited = sum(last - call.start for call in calls) / len(calls)
        kinds.setdefault((calls[0].phase, calls[0].name), []).append((calls[0].size, moved, waited))
    return [
        Cost(name, phase, len(found) / updates, *(sum(values) / updates for values in zip(*found, strict=True)))
        for (phase, name), found in kinds.items()
    ]


def _bytes(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    return sum(_bytes(one) for one in value) if isinstance(value, list | tuple) else 0
