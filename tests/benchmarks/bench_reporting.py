"""Time that the training thread spends on report lines, with and without W&B: `python tests/benchmarks/bench_reporting.py`.

A thousand train lines as a run writes them, to metrics.jsonl, log.txt and the console; W&B takes them on a thread of its own. The line's
values are computed too. The share is that of a run which reports every 10 updates of `--update-seconds` each. Prints JSON.
"""

import argparse
import io
import json
import statistics
import tempfile
import time
from pathlib import Path

from rich.console import Console

from kd.training.update_report import UpdateReport
from launcher.config.run_config import ReportSettings
from launcher.reporting.catalogue import TIME_PARTS
from launcher.reporting.event_counts import EventCounts
from launcher.reporting.meter import Meter
from launcher.reporting.reporters import Reporters
from launcher.reporting.train_line import train_line

LINES, EVERY = 1000, 10
TERMS = {"soft_targets": 1.0, "mlm": 2.0, "cosine": 0.5}


def seconds_per_line(wandb: str, lines: int = LINES) -> dict[str, float]:
    """Median and mean seconds of the training thread per line."""
    meter, counts, seconds = Meter(), EventCounts(), []
    phases = {phase: 0.1 for parts in TIME_PARTS.values() for phase in parts}
    with tempfile.TemporaryDirectory() as folder:
        settings = ReportSettings(wandb=wandb)  # type: ignore[arg-type]
        console = Console(file=io.StringIO())
        reporters = Reporters(settings, Path(folder), name="bench", config={}, run_id="bench001", console=console)
        for update in range(1, lines + 1):
            report = UpdateReport(update * EVERY, 3.0, TERMS, 1.0, 1e-4, True, 4096, 600, more={"clipped_share": 0.0})
            started = time.perf_counter()
            meter.add(report)
            values = train_line(
                report,
                meter.take(0.0),
                updates=lines * EVERY,
                tokens=4096 * update,
                epoch=0.1,
                skipped=0,
                elapsed_seconds=1.0 * update,
                world=1,
                phase_seconds=phases,
            )
            reporters.line({"kind": "train", "update": update * EVERY, **values, **counts.values, "time": time.time()})
            seconds.append(time.perf_counter() - started)
        reporters.close()
    return {"median_seconds": statistics.median(seconds), "mean_seconds": statistics.fmean(seconds)}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update-seconds", type=float, default=0.5)
    seconds = parser.parse_args().update_seconds
    found = {way: seconds_per_line(way) for way in ("off", "offline")}
    shares = {way: values["mean_seconds"] / (EVERY * seconds) for way, values in found.items()}
    print(
        json.dumps(
            {"lines": LINES, "every_updates": EVERY, "update_seconds": seconds, "per_line": found, "share_of_time": shares}, indent=1
        )
    )


if __name__ == "__main__":
    main()
