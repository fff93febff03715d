"""The values of a train line: means, rates, counts and shares of time since the last one."""

from collections import deque
from collections.abc import Mapping
from statistics import median
from typing import Any

from kd.training.update_report import UpdateReport
from launcher.reporting.catalogue import TIME_PARTS
from launcher.reporting.meter import peak_memory_gb

ENOUGH = 10  # lines, before any is called slow
SLOW = 0.5  # of the median rate


def train_line(
    report: UpdateReport,
    means: Mapping[str, Any],
    *,
    updates: int,
    tokens: int,
    epoch: float,
    skipped: int,
    elapsed_seconds: float,
    world: int,
    phase_seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The line of the last update. means: `Meter.take`. phase_seconds: of rank 0 since the last line, by phase.

    updates: of the whole run. tokens, skipped: so far.
    """
    values = {
        **{key: value for key, value in means.items() if key != "seconds_per_update"},
        "tokens_per_second_per_rank": means["tokens_per_second"] / world,
        "updates": updates,
        "tokens": tokens,
        "tokens_total": round(tokens / report.update * updates),
        "elapsed_seconds": round(elapsed_seconds, 3),
        "epoch": epoch,
        "learning_rate": report.learning_rate,
        **report.scheduled,
        "seconds_left": (updates - report.update) * means["seconds_per_update"],
        "memory_gb": peak_memory_gb(),
        **shares_of_time(phase_seconds),
        "skipped_updates": skipped,
    }
    return values | ({"phase": report.phase} if report.phase else {})


def shares_of_time(phase_seconds: Mapping[str, float]) -> dict[str, float]:
    """Each part's share of an update's time. Evaluation and saving are no parts. {} before anything was timed."""
    seconds = {part: sum(phase_seconds.get(phase, 0.0) for phase in phases) for part, phases in TIME_PARTS.items()}
    total = sum(seconds.values())
    return {f"time/{part}": value / total for part, value in seconds.items()} if total > 0 else {}


class Throughput:
    """The rates of the last train lines of this start."""

    def __init__(self) -> None:
        self._usual: deque[float] = deque(maxlen=64)
        self._low = 0

    def judge(self, tokens_per_second: float) -> str | None:
        """A sentence if the rate of two lines in a row is below half of the median. Said once, until a rate is good again."""
        usual = median(self._usual) if len(self._usual) >= ENOUGH else 0.0
        if tokens_per_second >= SLOW * usual:
            self._low = 0
            self._usual.append(tokens_per_second)
            return None
        self._low += 1
        if self._low != 2:
            return None
        rates = f"{tokens_per_second:,.0f} tokens/s, below half of the median of {usual:,.0f}"
        return f"{rates}; see data_wait_share and the machine's other work"
