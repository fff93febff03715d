"""CPU time of models on the same input, measured in turns, so that a change of the machine's speed affects all alike."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kd.export.runtime import AnySession

WARM_UP = 3


@dataclass(frozen=True)
class Timing:
    """Seconds of each repetition: cpu, of all threads of this process; wall. first: wall time of the first run of the warm-up."""

    cpu: NDArray[np.float64]
    wall: NDArray[np.float64]
    first: float

    @property
    def wall_per_cpu(self) -> float:
        """Wall time over CPU time. Above 1.2 with one thread, other processes had the core."""
        return float(self.wall.sum() / max(self.cpu.sum(), 1e-9))


def measure(
    sessions: Sequence[AnySession],
    inputs: Sequence[Sequence[NDArray[np.int64]]],
    repetitions: int,
    pause_seconds: float = 0.0,
    advance: Callable[[], None] = lambda: None,
) -> list[Timing]:
    """Run each session on its inputs, in turns. inputs: the arrays of each session. The warm-up is not counted.

    pause_seconds: before each run, for threads of the run before that still spin. advance: called after each repetition.
    """
    first = []
    for session, arrays in zip(sessions, inputs, strict=True):
        begin = time.perf_counter()
        session.run(arrays)
        first.append(time.perf_counter() - begin)
        for _ in range(WARM_UP - 1):
            session.run(arrays)
    cpu = np.zeros((len(sessions), repetitions))
    wall = np.zeros_like(cpu)
    for repetition in range(repetitions):
        for number, (session, arrays) in enumerate(zip(sessions, inputs, strict=True)):
            if pause_seconds:
                time.sleep(pause_seconds)
            started = time.process_time(), time.perf_counter()
            session.run(arrays)
            cpu[number, repetition], wall[number, repetition] = time.process_time() - started[0], time.perf_counter() - started[1]
        advance()
    return [Timing(*one) for one in zip(cpu, wall, first, strict=True)]


def input_arrays(session: AnySession, batch: int, length: int, vocabulary: int, seed: int = 0) -> list[NDArray[np.int64]]:
    """Random ids [batch, length] without padding, in the order of the session's inputs."""
    ids = np.random.default_rng(seed).integers(min(5, vocabulary - 1), vocabulary, (batch, length))
    arrays = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    return [arrays[name] for name in session.inputs]
