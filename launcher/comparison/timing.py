"""Seconds per update of each variant, measured side by side on one machine, so that a budget of time is the same for all.

1. `measure` starts this file once, on as many ranks as the runs will have; nothing else of the comparison runs meanwhile.
2. The ranks build every variant in turn, ROUNDS times over, and time UPDATES updates of each after WARM_UPDATES untimed ones.
3. A variant's pace is the lower quartile of its times, because other work on the machine can only make an update longer. As the
   variants take turns, disturbances that last longer than a turn slow all of them.

A run with --budget time then has a fixed number of updates, seconds / pace. So it is an ordinary run, resumable and repeatable, and other
work on the machine does not shorten it. Variants added later are measured together with the reference, and their pace is scaled by how the
reference's has changed.
"""

import json
import os
import sys
import time
from pathlib import Path
from statistics import quantiles

from rich.console import Console

from data_shards.corpus import Corpus
from kd.distributed import process_group
from launcher.comparison.jobs import job_environment
from launcher.comparison.settings import PlannedRun
from launcher.config.load import load_config
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.process.signals import Exit
from launcher.process.start_ranks import Processes
from launcher.text import counted
from launcher.training.batches import BatchLoader
from launcher.training.build import build
from stillhouse.files import write_atomically

PACE = "pace.json"
COMMAND = ("-m", "launcher.comparison.timing")
ROUNDS = 3
UPDATES = 4
WARM_UPDATES = 1


def known(root: Path) -> dict[str, float]:
    """Seconds per update by variant, as measured so far in a comparison's folder."""
    path = root / PACE
    return dict(json.loads(path.read_text(encoding="utf-8"))["seconds_per_update"]) if path.exists() else {}


def measure(root: Path, runs: list[PlannedRun], reference: str, ranks: int, seconds: float, console: Console) -> dict[str, float]:
    """Seconds per update of every variant: those known, and the others measured now. runs: one of each variant.

    Raises LaunchError when the folder's pace was taken for another budget or number of ranks, or measuring fails.
    """
    path = root / PACE
    taken = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {"seconds": seconds, "ranks": ranks}
    if (taken["seconds"], taken["ranks"]) != (seconds, ranks):
        raise LaunchError(
            f"{path}: expected the budget of {taken['seconds']:g} seconds on {taken['ranks']} ranks that it was measured for, "
            f"got {seconds:g} on {ranks}; choose another --folder"
        )
    before = known(root)
    wanted = [run for run in runs if run.variant not in before or (before and run.variant == reference)]
    if all(run.variant in before for run in runs):
        return before
    console.print(f"measuring {counted(len(wanted), 'variant')} in turns, {ROUNDS} x {UPDATES} updates each", highlight=False)
    asked = root / ".measuring.json"
    write_atomically(asked, json.dumps({run.variant: [run.job.config, *run.job.words] for run in wanted}))
    output = root / "pace.txt"
    processes = Processes([*COMMAND, str(asked)], ranks, output, job_environment(ranks))
    try:
        while (code := processes.poll()) is None:
            time.sleep(0.2)
    finally:
        processes.stop()
        measured = json.loads(asked.read_text(encoding="utf-8"))
        asked.unlink()
    if code != Exit.DONE:
        raise LaunchError(f"{root}: expected to measure the variants' pace, got exit code {code}; {output} says why")
    scale = before[reference] / measured[reference] if reference in before else 1.0
    pace = {name: value * scale for name, value in measured.items()} | before
    write_atomically(path, json.dumps({"seconds": seconds, "ranks": ranks, "seconds_per_update": pace}, indent=1) + "\n")
    return pace


def lower_quartile(times: list[float]) -> float:
    """The value a quarter of the times stay below, interpolated."""
    return quantiles(times, n=4, method="inclusive")[0] if len(times) > 1 else times[0]


def main(path: Path) -> int:
    """On each rank: replace the file's variants with their seconds per update, the slowest rank's being everybody's."""
    variants: dict[str, list[str]] = json.loads(path.read_text(encoding="utf-8"))
    process_group.start(600.0)
    times: dict[str, list[float]] = {name: [] for name in variants}
    try:
        for number in range(ROUNDS):
            for name, (base, *words) in variants.items():
                times[name] += _updates(load_config(base, words))
                print(f"round {number + 1}: {name}: {', '.join(f'{t:.3f}' for t in times[name][-UPDATES:])} s", flush=True)
        if process_group.rank() == 0:
            write_atomically(path, json.dumps({name: lower_quartile(taken) for name, taken in times.items()}))
        process_group.barrier()
    finally:
        process_group.stop()
    return int(Exit.DONE)


def _updates(config: RunConfig) -> list[float]:
    """Seconds of each timed update of a run that is thrown away."""
    parts = build(config, Corpus.open(config.data.shards, config.data.cache_folder), None)
    loader = BatchLoader(parts.stream, config.train, rank=process_group.rank(), world=process_group.world_size(), update=0, windows=0)
    times = []
    for number in range(WARM_UPDATES + UPDATES):
        batches = loader.next_update()
        started = time.perf_counter()
        parts.trainer.update(batches)
        if number >= WARM_UPDATES:
            times.append(time.perf_counter() - started)
    loader.close()
    return times


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    sys.exit(main(Path(sys.argv[1])))
