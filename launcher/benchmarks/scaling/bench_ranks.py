"""`stillhouse bench --ranks N`: the same global batch on one process and on N, and the time of each collective.

N processes of one machine share its memory and its caches. So N processes that train apart, on a share of the batch each, are timed too:
what they lose is the machine's, and the rest is the cost of training together.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from kd.distributed import process_group
from kd.models.config import quiet_transformers
from launcher.benchmarks.cases import Case, invented, of_run
from launcher.benchmarks.machine import BUSY, busy, machine, said
from launcher.benchmarks.scaling.collectives import Call, Cost, costs
from launcher.config.load import load_config
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.process.signals import Exit
from launcher.process.start_ranks import Processes, child_environment
from launcher.process.steps import step
from launcher.tables import Column, PlainConsole, print_table
from launcher.text import share
from stillhouse.files import write_atomically

MOST_ROUNDS = 2
PATIENCE_SECONDS = 1800.0


@dataclass(frozen=True)
class Scaling:
    """The figures of one case. one, together, apart: real tokens per second of one rank, of `ranks`, and of as many that share nothing.

    low, high: the smallest and largest speedup of a round. wall_per_cpu: of the ways without collectives, per thread.
    """

    case: str
    precision: str
    ranks: int
    rows: int
    one: float
    together: float
    apart: float
    low: float
    high: float
    update_seconds: float
    collectives: Sequence[Cost]
    wall_per_cpu: float

    @property
    def speedup(self) -> float:
        """Of the ranks over one."""
        return self.together / self.one

    @property
    def efficiency(self) -> float:
        """1: N ranks are N times as fast as one."""
        return self.speedup / self.ranks

    @property
    def moving(self) -> float:
        """The share of an update in which bytes move."""
        return sum(cost.moved for cost in self.collectives) / self.update_seconds

    @property
    def waiting(self) -> float:
        """The share of an update in which a rank waits for another."""
        return sum(cost.waited for cost in self.collectives) / self.update_seconds

    @property
    def row(self) -> dict[str, Any]:
        """Everything, for JSON."""
        more = {"speedup": self.speedup, "efficiency": self.efficiency, "of_apart": self.together / self.apart}
        return asdict(self) | more | {"reliable": self.wall_per_cpu <= BUSY}


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the tables, write the file."""
    console = PlainConsole()
    with tempfile.TemporaryDirectory(prefix="stillhouse-bench-") as folder, quiet_transformers():
        if arguments.config:
            cases: Sequence[Case] = of_run(load_config(arguments.config, arguments.settings))
        else:
            with step("writing random teachers and invented documents"):
                cases = invented(Path(folder), arguments.precision)
        figures = []
        for number, case in enumerate(cases):
            with step(f"measuring {case.name} on 1 and {arguments.ranks} ranks"):
                place = Path(folder) / f"case-{number}"
                place.mkdir()
                figures.append(measure(case, arguments.ranks, arguments.updates, place))
    facts = machine() | {"threads": int(_environment(arguments.ranks)["OMP_NUM_THREADS"])}
    show(figures, facts, console)
    if arguments.json:
        write_atomically(Path(arguments.json), json.dumps({"machine": facts, "scaling": [one.row for one in figures]}, indent=1) + "\n")
        console.print(f"figures: {arguments.json}", soft_wrap=True)
    return 0


def measure(case: Case, ranks: int, updates: int, folder: Path) -> Scaling:
    """The three ways in turn, in two rounds unless there is one update.

    Raises LaunchError if a batch cannot be shared out, or a process fails.
    """
    whole = case.config
    rows, rest = divmod(whole.train.global_batch, ranks)
    if rest:
        raise LaunchError(
            f"--ranks: expected a number that divides train.global_batch, got {ranks} and {whole.train.global_batch}; change either"
        )
    micro = whole.train.micro_batch if rows % whole.train.micro_batch == 0 else rows
    shared, alone = _sized(whole, ranks * rows, micro), _sized(whole, rows, micro)
    rounds = []
    for number in range(min(MOST_ROUNDS, updates)):
        one = _way(folder / f"{number}-one", shared, 1, 1, updates)
        together = _way(folder / f"{number}-together", shared, 1, ranks, updates)
        apart = _way(folder / f"{number}-apart", alone, ranks, 1, updates)
        rounds.append((one, together, apart))
    rates = [(_rate(one[0]), _rate(together[0]), sum(map(_rate, apart))) for one, together, apart in rounds]
    speedups = [together / one for one, together, _ in rates]
    last = rounds[-1][1]
    quiet = [answer for one, _, apart in rounds for answer in (*one, *apart)]
    threads = int(_environment(ranks)["OMP_NUM_THREADS"]) if process_group.device().type == "cpu" else None
    return Scaling(
        case=case.name,
        precision=last[0]["precision"],
        ranks=ranks,
        rows=micro,
        one=statistics.median(one for one, _, _ in rates),
        together=statistics.median(together for _, together, _ in rates),
        apart=statistics.median(apart for _, _, apart in rates),
        low=min(speedups),
        high=max(speedups),
        update_seconds=_seconds(last[0]),
        collectives=costs([[Call(**call) for call in answer["calls"]] for answer in last], updates),
        wall_per_cpu=sum(sum(one["wall"]) for one in quiet) / sum(sum(one["cpu"]) for one in quiet) if threads == 1 else 1.0,
    )


def _sized(config: RunConfig, rows: int, micro_batch: int) -> RunConfig:
    return config.model_copy(update={"train": config.train.model_copy(update={"global_batch": rows, "micro_batch": micro_batch})})


def _way(place: Path, config: RunConfig, worlds: int, ranks: int, updates: int) -> list[dict[str, Any]]:
    """The answers of all processes of some worlds that run at the same time."""
    place.mkdir()
    file, log = place / "config.json", place / "log.txt"
    file.write_text(config.model_dump_json(), encoding="utf-8")
    words = ["-m", "launcher.benchmarks.scaling.one_rank", str(file), str(updates)]
    environment = _environment(max(worlds, ranks))
    started = []
    for number in range(worlds):
        own = environment | ({"CUDA_VISIBLE_DEVICES": str(number)} if worlds > 1 and process_group.device().type == "cuda" else {})
        started.append(Processes([*words, str(place / str(number))], ranks, log, own))
    end = time.monotonic() + PATIENCE_SECONDS
    try:
        while None in (codes := [world.poll() for world in started]) and time.monotonic() < end:
            time.sleep(0.1)
    finally:
        for world in started:
            world.stop()
    if any(code != 0 for code in codes):  # None: out of patience
        last = (log.read_text(encoding="utf-8", errors="replace").strip().splitlines() or ["nothing"])[-1]
        if Exit.BAD_INPUT in codes:  # the line is a rank's own, and complete
            raise LaunchError(last)
        raise LaunchError(f"--ranks: expected all processes to train, got {last}; see stillhouse doctor")
    return [json.loads((place / f"{number}.{rank}").read_text(encoding="utf-8")) for number in range(worlds) for rank in range(ranks)]


def _environment(ranks: int) -> dict[str, str]:
    """Each process of each way has the same number of threads."""
    threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, (os.cpu_count() or 1) // ranks))
    return child_environment() | {"OMP_NUM_THREADS": threads}


def _seconds(answer: dict[str, Any]) -> float:
    """The median update."""
    return statistics.median(answer["wall"])


def _rate(answer: dict[str, Any]) -> float:
    """Real tokens per second of the median update, of all ranks of its world."""
    return float(answer["tokens"] / len(answer["wall"]) / _seconds(answer))


def show(figures: Sequence[Scaling], facts: dict[str, Any], console: Console) -> None:
    """The table of speeds, then that of collectives for each case."""
    ranks = figures[0].ranks

    def cells(text: Any) -> list[str]:
        return [text(one) for one in figures]

    columns = [
        Column("precision", cells(lambda one: one.precision)),
        Column("rows", cells(lambda one: str(one.rows)), "of a micro-batch, in every column"),
        Column("1 rank", cells(lambda one: f"{one.one:,.0f}"), "real tokens a second"),
        Column(f"{ranks} ranks", cells(lambda one: f"{one.together:,.0f}"), "the same, the same global batch"),
        Column(
            "speedup",
            cells(lambda one: f"{one.speedup:.2f} ({one.low:.2f}-{one.high:.2f})"),
            "median and range of the rounds, of which each starts all processes anew",
        ),
        Column("efficiency", cells(lambda one: share(one.efficiency)), f"speedup over {ranks}"),
        Column(
            "of apart",
            cells(lambda one: share(one.together / one.apart)),
            f"speed over that of {ranks} processes that share nothing but the machine",
        ),
        Column("moving", cells(lambda one: share(one.moving)), "share of an update in which collectives move bytes"),
        Column("waiting", cells(lambda one: share(one.waiting)), "share of an update in which a rank waits for another"),
    ]
    print_table(console, Column("case", [one.case for one in figures], justify="left"), columns)
    for one in figures:
        console.print(f"{one.case}, collectives of an update on {ranks} ranks:", soft_wrap=True)
        found = one.collectives
        print_table(
            console,
            Column("collective", [cost.name for cost in found], justify="left"),
            [
                Column("phase", [cost.phase for cost in found], justify="left"),
                Column("calls", [f"{cost.calls:g}" for cost in found]),
                Column("MB", [f"{cost.size / 1e6:,.3f}" for cost in found]),
                Column("moving", [f"{1000 * cost.moved:,.1f} ms" for cost in found]),
                Column("waiting", [f"{1000 * cost.waited:,.1f} ms" for cost in found]),
            ],
        )
    console.print(said(facts), soft_wrap=True)
    for one in figures:
        if one.wall_per_cpu > BUSY:
            console.print(busy(one.case, one.wall_per_cpu), soft_wrap=True)
