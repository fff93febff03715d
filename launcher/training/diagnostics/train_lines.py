"""Train lines of a run: means and rates since the last line, counts of events, and the events that a slow line is worth."""

import socket
from collections.abc import Callable, Sequence
from typing import Any

from kd.batch import Batch
from kd.distributed import process_group
from kd.training.trainer import Trainer
from kd.training.update_report import UpdateReport
from launcher.planning.cost.workload import Workload
from launcher.reporting.event_counts import EventCounts
from launcher.reporting.meter import Meter
from launcher.reporting.train_line import Throughput, train_line
from launcher.training.batches import BatchLoader
from launcher.training.diagnostics.utilisation import UpdateFlops
from launcher.training.stragglers import gather, straggler

Event = Callable[[str, str], None]


class TrainLines:
    """The train lines of one run on one rank. Every rank has one and calls it alike."""

    def __init__(self, trainer: Trainer, updates: int, event: Event) -> None:
        """updates: of the whole run. event: reports an event, (name, message), from rank 0."""
        self.meter = Meter()
        self.counts = EventCounts()
        self._trainer, self._updates, self._event = trainer, updates, event
        self._flops = UpdateFlops(None, trainer)
        self._throughput = Throughput()
        self._hosts = process_group.texts(socket.gethostname())
        self._straggler: int | None = None  # the rank that was last said to be much slower than the others

    def expect(self, work: Workload | None, gemm_rate: float, memory: int | None) -> None:
        """Take the plan into account. gemm_rate: FLOP/s of all ranks, 0: not measured. memory: planned bytes of a rank.

        Called after the meter was restored.
        """
        self._flops = UpdateFlops(work, self._trainer)
        self.meter.gemm_rate, self.meter.planned_memory = gemm_rate, memory

    def add(self, report: UpdateReport, batches: Sequence[Batch]) -> None:
        """Count an update. batches: this rank's."""
        self.meter.add(report, self._flops.of(batches, report))

    def values(self, report: UpdateReport, loader: BatchLoader, elapsed_seconds: float) -> dict[str, Any]:
        """The numbers of the line of an update."""
        waited, loader.waited_seconds = loader.waited_seconds, 0.0
        progress = self._trainer.progress
        line = train_line(
            report,
            self.meter.take(waited),
            updates=self._updates,
            tokens=self._trainer.tokens,
            epoch=loader.windows / loader.stream.windows_per_epoch,
            skipped=self._trainer.skipped,
            elapsed_seconds=elapsed_seconds,
            world=process_group.world_size(),
            phase_seconds=progress.busy if process_group.device().type == "cpu" else {},
        )
        return line | self.counts.values

    def judge(self, tokens_per_second: float) -> None:
        """Report a rate that is much lower than before, and the rank that the others wait for. Collective."""
        if slow := self._throughput.judge(tokens_per_second):
            self._event("slow", slow)
        found = straggler(gather(self._trainer.progress.take_busy()))
        rank = found.rank if found is not None else None
        if found is not None and rank != self._straggler:  # once, as long as it is the same one
            self._event("straggler", found.sentence(self._hosts))
        self._straggler = rank
