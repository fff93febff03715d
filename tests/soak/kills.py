"""`make soak`: a run of two ranks that is killed again and again, against one that was left alone.

    python tests/soak/kills.py --kills 100 --seed 7

Each kill (-9) takes rank 0, rank 1 or both, at a random instant between the start of the processes and the end of the run, or while a
checkpoint is being written. A run is started again until it has ended, then compared: every report line, every held-out score, every bit
of the weights, every token. One rank that is killed alone leaves the other to say so and to leave with 76, which is held to as well.
Prints one JSON object of figures; exit code 1 if anything differed.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from fork_server import Forked, ForkServer  # noqa: E402
from run_lines import free_port, train_lines  # noqa: E402
from sameness import compare  # noqa: E402
from school import make_school  # noqa: E402

SETTINGS = "train.updates=24 checkpoint.every_updates=3 report.every_updates=1 evaluate.every_updates=8".split()  # noqa: SIM905
KILLS_PER_RUN = 10


class Soak:
    """The forks, the school, and what has happened so far."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self.folder = folder
        self.school = make_school(folder)
        self.server = ForkServer()
        self.starts = 0
        self.counts: Counter[str] = Counter()
        self.updates: list[int] = []

    def start(self, run: Path) -> list[Forked]:
        self.starts += 1
        port = str(free_port())
        argv = [
            "launcher/run.py",
            "--config",
            "tiny",
            f"run.folder={run}",
            f"data.shards={self.school.shards}",
            f"teacher.model={self.school.teacher}",
            *SETTINGS,
        ]
        meeting = {
            **os.environ,
            "OMP_NUM_THREADS": "1",
            "WANDB_SILENT": "true",
            "NO_COLOR": "1",
            "WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": port,
        }
        return [
            self.server.start(argv, meeting | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, self.log(rank), self.folder) for rank in (0, 1)
        ]

    def log(self, rank: int) -> Path:
        return self.folder / f"start-{self.starts}-rank-{rank}.log"

    def kill_once(self, run: Path, seconds: float) -> bool:
        """Start, and kill at a random instant; whether the run had ended before."""
        ranks = self.start(run)
        victims = self.draw.choice(([0], [1], [0, 1]))
        saving = self.draw.random() < 0.3
        instant = time.monotonic() + self.draw.uniform(0, seconds)
        hurry = time.monotonic() + 20 * seconds
        while time.monotonic() < (hurry if saving else instant):
            if saving and any((run / "checkpoints").glob(".writing-update-*")):
                break
            if all(rank.poll() is not None for rank in ranks):
                return self.ended(ranks)
            time.sleep(0.001)
        if any(ranks[victim].poll() is not None for victim in victims):
            return self.ended(ranks)
        for victim in victims:
            os.kill(ranks[victim].pid, 9)
        lines = train_lines(run)
        self.updates.append(lines[-1]["update"] if lines else 0)
        self.counts["kills"] += 1
        self.counts[f"of rank {victims[0]}" if len(victims) == 1 else "of both ranks"] += 1
        self.counts["while saving" if saving else "at any instant"] += 1
        for number, rank in enumerate(ranks):
            if number not in victims:
                self.left_alone(rank, self.log(number))
        return False

    def left_alone(self, rank: Forked, log: Path) -> None:
        """The other rank was killed: this one says so and leaves; one that still waits for the first meeting is ended."""
        end = time.monotonic() + 60
        while rank.poll() is None and time.monotonic() < end:
            if not (log.exists() and log.stat().st_size) and time.monotonic() > end - 45:
                rank.kill()
                rank.wait(60)
                self.counts["survivors that had not met the other yet"] += 1
                return
            time.sleep(0.02)
        code = rank.poll()
        if code == 76:
            self.counts["survivors that named the lost rank"] += 1
        elif code != 0:
            raise AssertionError(f"the rank that was left alone: expected code 76, got {code}: {log.read_text()}")

    def ended(self, ranks: list[Forked]) -> bool:
        codes = [rank.wait(300) for rank in ranks]
        if codes != [0, 0]:
            raise AssertionError(f"expected both ranks to end with 0, got {codes}: {self.log(0).read_text()}\n{self.log(1).read_text()}")
        return True

    def finish(self, run: Path) -> None:
        self.ended(self.start(run))


def main() -> None:
    """The command's door."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10_000)
    arguments = parser.parse_args()
    began = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    soak = Soak(folder, arguments.seed)
    whole = folder / "whole"
    started = time.monotonic()
    soak.finish(whole)
    seconds = time.monotonic() - started
    failed = ""
    try:
        number = 0
        while soak.counts["kills"] < arguments.kills:
            number += 1
            run = folder / f"run-{number}"
            ended = False
            for _ in range(min(KILLS_PER_RUN, arguments.kills - soak.counts["kills"])):
                ended = soak.kill_once(run, seconds)
                if ended:
                    break
            if not ended:
                soak.finish(run)
            compare(run, whole)
            soak.counts["runs equal to the undisturbed one"] += 1
            shutil.rmtree(run)
            print(f"{soak.counts['kills']} kills, {number} runs, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    except AssertionError as error:
        failed = str(error)
    soak.server.close()
    spread = Counter(min(update // 6 * 6, 18) for update in soak.updates)
    print(
        json.dumps(
            {"seed": arguments.seed}
            | dict(soak.counts)
            | {"kills after update 0-5, 6-11, 12-17, 18-24": [spread[k] for k in (0, 6, 12, 18)]}
            | {"seconds": round(time.monotonic() - began), "failed": failed}
        )
    )
    if failed:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
