"""Updates of a run that are timed and thrown away. Nothing is written: no run folder, no checkpoint, no report.

The models, the shards, the batch sizes and the ranks are those of the run, so the times are too.
"""

import time
from dataclasses import dataclass

import torch

from kd.distributed import process_group
from kd.distributed.rank_progress import BUILDING, RankProgress
from launcher.config.run_config import AnyRunConfig
from launcher.process.steps import step
from launcher.reporting.meter import peak_memory_gb
from launcher.text import counted, duration
from launcher.training.batches import BatchLoader
from launcher.training.parts import TrainingData
from launcher.training.rank_consistency import agree
from launcher.training.rank_watch import say_aloud, watching
from launcher.training.start import meet

WARM_UPDATES, UPDATES = 1, 5


@dataclass(frozen=True)
class Estimate:
    """The expected time and memory of a run. seconds_per_update: the mean over `measured` updates. memory_gb: peak of this rank."""

    measured: int
    seconds_per_update: float
    tokens_per_update: float
    updates: int
    phases: int
    memory_gb: float

    @property
    def text(self) -> str:
        """The estimate in one line."""
        rate = 1 / self.seconds_per_update
        first = " of the first phase" if self.phases > 1 else ""
        return (
            f"measured on {counted(self.measured, 'update')}{first}: {rate:.3g} updates/s, {rate * self.tokens_per_update:,.0f} tokens/s, "
            f"{self.memory_gb:.2f} GB of memory; {counted(self.updates, 'update')}: {duration(self.updates * self.seconds_per_update)}, "
            "and evaluations and checkpoints on top"
        )


def estimate(config: AnyRunConfig, data: TrainingData) -> Estimate:
    """Measure a few updates of a run on these ranks. Collective. Raises what the start of the run would raise."""
    progress = RankProgress()
    meet(config.train.timeout_seconds)
    try:
        with watching(progress, config.train.timeout_seconds, say_aloud):
            agree(config, data.contents)
            progress.enter(BUILDING)
            with step("measuring a few updates, which are thrown away"):
                return measure(config, data, progress)
    finally:
        process_group.stop()


def measure(
    config: AnyRunConfig, data: TrainingData, progress: RankProgress | None = None, warm: int = WARM_UPDATES, count: int = UPDATES
) -> Estimate:
    """The estimate of a run, between the meeting of the ranks and their parting. Collective."""
    parts = data.build(None, progress)
    at = {"rank": process_group.rank(), "world": process_group.world_size(), "update": 0, "windows": 0}
    loader = BatchLoader(parts.stream, config.train, **at, to_batch=parts.to_batch)
    times: list[float] = []
    tokens = 0
    warm = min(warm, parts.updates - 1)  # a run of one update has no other to measure
    try:
        for number in range(min(warm + count, parts.updates)):
            if progress is not None:
                progress.begin(number + 1, "data")
            started = time.perf_counter()
            report = parts.trainer.update(loader.next_update())
            if process_group.device().type == "cuda":
                torch.cuda.synchronize()
            if number >= warm:
                times.append(time.perf_counter() - started)
                tokens += report.tokens
    finally:
        loader.close()
    return Estimate(
        measured=len(times),
        seconds_per_update=sum(times) / len(times),
        tokens_per_update=tokens / len(times),
        updates=parts.updates,
        phases=len(parts.trainer.phases),
        memory_gb=peak_memory_gb(),
    )
