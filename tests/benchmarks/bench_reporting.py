"""Time that the training thread spends on report lines, with and without W&B: `python tests/benchmarks/bench_reporting.py`.

A thousand train lines as a run writes them, to metrics.jsonl, log.txt and the console; W&B takes them on a thread of its own. The line's
values are computed too, with the FLOPs of its ten updates. Every 50th line has an evaluation's masked sentences. CPU time counts, because
other processes take turns on the cores: of the training thread, and of the whole process, which has W&B's thread. The share is that of a
run which reports every 10 updates of `--update-seconds` each. Prints JSON.
"""

import argparse
import io
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console

sys.path.insert(0, str(Path(__file__).parents[1] / "helpers"))

from planned_runs import planned_run

from kd.training.update_report import UpdateReport
from launcher.config.run_config import ReportSettings
from launcher.planning.cost.operations import flops_of_batches
from launcher.reporting.catalogue import TIME_PARTS
from launcher.reporting.event_counts import EventCounts
from launcher.reporting.meter import Meter
from launcher.reporting.reporters import Reporters
from launcher.reporting.train_line import train_line

LINES, EVERY = 1000, 10
TERMS = {"soft_targets": 1.0, "mlm": 2.0, "cosine": 0.5}


SENTENCES, EVALUATIONS = 8, 50


def samples(update: int) -> list[dict[str, Any]]:
    """Masked sentences of one evaluation."""
    guesses = [(f"word{n}", 0.1) for n in range(5)]
    line = {"id": "window 1, token 2", "text": "some words " * 24, "label": "word", "prediction": "word0", "update": update}
    return [{**line, "student": guesses, "teacher": guesses} for _ in range(SENTENCES)]


def seconds_per_line(wandb: str, lines: int = LINES) -> dict[str, float]:
    """Wall and CPU seconds of the training thread per line, and CPU seconds of the whole process until W&B has taken all."""
    meter, counts, seconds = Meter(), EventCounts(), []
    meter.gemm_rate = 1e11
    work = planned_run()
    thread, process = 0.0, time.process_time()
    phases = {phase: 0.1 for parts in TIME_PARTS.values() for phase in parts}
    with tempfile.TemporaryDirectory() as folder:
        settings = ReportSettings(wandb=wandb)  # type: ignore[arg-type]
        console = Console(file=io.StringIO())
        reporters = Reporters(settings, Path(folder), name="bench", config={}, run_id="bench001", console=console)
        for update in range(1, lines + 1):
            report = UpdateReport(update * EVERY, 3.0, TERMS, 1.0, 1e-4, True, 4096, 600, more={"clipped_share": 0.0})
            started, own = time.perf_counter(), time.thread_time()
            for _ in range(EVERY):
                flops = flops_of_batches(work, [(8, 128)] * 8, 600.0).total
            meter.add(report, EVERY * flops)
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
            if update % EVALUATIONS == 0:
                reporters.samples(update * EVERY, samples(update * EVERY))
            seconds.append(time.perf_counter() - started)
            thread += time.thread_time() - own
        reporters.close()
    whole = time.process_time() - process
    return {"median_wall": statistics.median(seconds), "thread_cpu": thread / lines, "process_cpu": whole / lines}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--update-seconds", type=float, default=0.5)
    seconds = parser.parse_args().update_seconds
    found = {way: seconds_per_line(way) for way in ("off", "offline")}
    shares = {way: {name: value / (EVERY * seconds) for name, value in values.items()} for way, values in found.items()}
    print(
        json.dumps(
            {"lines": LINES, "every_updates": EVERY, "update_seconds": seconds, "per_line": found, "share_of_time": shares}, indent=1
        )
    )


if __name__ == "__main__":
    main()
