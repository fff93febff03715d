"""Means and rates between two report lines.

The sums are part of a checkpoint, so that a continued run writes the lines it would have written.
"""

import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch

from kd.training.update_report import UpdateReport
from launcher.reporting.catalogue import PER_UPDATE

_STATUS = Path("/proc/self/status")


class Meter:
    """Sums since the last report line."""

    def __init__(self) -> None:
        self.planned_memory: int | None = None
        """Bytes that a rank plans for build and updates. The next line says so, and no other."""
        self.gemm_rate = 0.0
        """FLOP/s of matrix products on all ranks; 0: not measured."""
        self._reset()

    def _reset(self) -> None:
        self.updates = 0
        self.tokens = 0
        """Since `started`, which a checkpoint does not keep: for the rate alone. The same holds for `flops`."""
        self.flops = 0.0
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        """Number of updates in each sum. A term is not computed while its weight is 0."""
        self.paused_seconds = 0.0
        self.started = time.perf_counter()

    def add(self, report: UpdateReport, flops: float = 0.0) -> None:
        """Count one update; one that was skipped has no loss to speak of. flops: of the models, on all ranks."""
        self.updates += 1
        self.flops += flops
        self.tokens += report.tokens
        if report.applied:
            values = {key: report.values[key] for key in PER_UPDATE if key in report.values}
            for name, value in (values | {f"loss/{term}": mean for term, mean in report.terms.items()}).items():
                self.sums[name] = self.sums.get(name, 0.0) + value
                self.counts[name] = self.counts.get(name, 0) + 1

    def pause(self, seconds: float) -> None:
        """Time that was spent on something other than learning: evaluation, saving."""
        self.paused_seconds += seconds

    def take(self, waited_seconds: float) -> dict[str, Any]:
        """Means since the last line, and start over. tokens_per_second and data_wait_share count learning time alone."""
        seconds = max(time.perf_counter() - self.started - self.paused_seconds, 1e-9)
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        values = {
            **means,
            "tokens_per_second": self.tokens / seconds,
            "data_wait_share": waited_seconds / seconds,
            "seconds_per_update": seconds / max(self.updates, 1),
        }
        if self.flops and self.gemm_rate:
            values |= {"tflops": self.flops / seconds / 1e12, "utilisation": self.flops / seconds / self.gemm_rate}
        if self.planned_memory is not None:
            values["memory_planned_gb"] = self.planned_memory / 1e9
            self.planned_memory = None
        self._reset()
        return values

    def as_dict(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        return {"sums": self.sums, "counts": self.counts}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Meter":
        """The inverse of as_dict; the clock starts anew."""
        meter = cls()
        meter.sums, meter.counts = dict(values["sums"]), dict(values["counts"])
        return meter


def peak_memory_gb() -> float:
    """The most memory this rank has held, decimal GB: of the GPU if there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    if _STATUS.exists():  # not ru_maxrss: a process inherits the peak of the one that started it
        match = re.search(r"^VmHWM:\s*(\d+) kB$", _STATUS.read_text(), re.MULTILINE)
        if match:
            return int(match[1]) * 1024 / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9
