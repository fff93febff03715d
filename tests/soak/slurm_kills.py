"""`make soak`, second half: jobs on a real Slurm of three hosts, hurt again and again, against one that was left alone.

    python tests/soak/slurm_kills.py --faults 25 --seed 7

Each fault comes at a random instant between the job's start and the end of its run: kill -9 of a rank, of all, of a step's daemon, of a
host or of the batch script; a rank that is stopped, for a while or for good; a network that is cut and heals, or not; a preemption; the
signal before a time limit, a SIGTERM, a requeueing by the administrator. Slurm and slurm/distil_pretrain.sh alone bring the job back;
only one whose batch script was killed is submitted again. A run that has ended is compared as in kills.py. Prints one JSON object of
figures; exit code 1 if anything differed, or a job ended otherwise than it may.
"""

import argparse
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "helpers")]

from cluster import ENDED, Cluster, running, what_it_lacks  # noqa: E402
from run_lines import train_lines  # noqa: E402
from sameness import compare  # noqa: E402
from school import make_school  # noqa: E402

HOSTS = {"node1": "198.51.100.11", "node2": "198.51.100.12", "node3": "198.51.100.13"}
SETTINGS = (
    "train.updates=360 train.timeout_seconds=8 checkpoint.every_updates=20 report.every_updates=1 evaluate.every_updates=120".split()  # noqa: SIM905
)
FAULTS_PER_RUN = 5
BATCH = "batch script killed"


class Soak:
    """The cluster, the school, and what has happened so far."""

    def __init__(self, cluster: Cluster, folder: Path, seed: int) -> None:
        self.cluster = cluster
        self.folder = folder
        self.school = make_school(folder)
        self.draw = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.began = time.monotonic()
        self.restarts: list[int] = []

    def submit(self, run: Path) -> str:
        words = [f"run.folder={run}", f"data.shards={self.school.shards}", f"teacher.model={self.school.teacher}", *SETTINGS]
        environment = {
            "STILLHOUSE_PYTHON": sys.executable,
            "STILLHOUSE_REQUEUE_ON": "75 76 137",
            "STILLHOUSE_STARTS": "9",
            "STILLHOUSE_STEP_SECONDS": "10",
            "OMP_NUM_THREADS": "1",
        }
        script = str(ROOT / "slurm" / "distil_pretrain.sh")
        flags = ["--nodes=2", "--ntasks-per-node=1", f"--output={run.name}-%j.out", "--open-mode=append"]
        self.counts["jobs"] += 1
        return self.cluster.submit("sbatch", *flags, script, "--config", "tiny", *words, cwd=self.folder, **environment)

    def log(self, number: str) -> str:
        return "".join(path.read_text(errors="replace") for path in self.folder.glob(f"*-{number}.out"))

    def say(self, text: str) -> None:
        print(f"{time.monotonic() - self.began:6.1f} s  {text}", file=sys.stderr, flush=True)

    def run_to_its_end(self, run: Path, faults: int, seconds: float) -> int:
        """One run with at most so many faults; how many there were."""
        number, done, killed = self.submit(run), 0, False
        while True:
            facts = self.wait_for_a_start(number)
            if facts["JobState"] in ENDED:
                self.restarts.append(int(facts["Restarts"]))
                if facts["JobState"] == "COMPLETED":
                    return done
                if not killed:
                    raise AssertionError(f"job {number}: expected to complete, got {facts['JobState']}: {self.log(number)}")
                number, killed = self.submit(run), False
            elif done < faults:
                fault = self.hurt(number, facts, run, seconds)
                done += bool(fault)
                killed |= fault == BATCH
            else:
                self.cluster.wait(number, ENDED | {"PENDING"}, timeout_seconds=300)

    def hurt(self, number: str, facts: dict[str, str], run: Path, seconds: float) -> str:
        """One fault at a random instant of this start of the job, and what comes of it; its name, or nothing if it came too late."""
        self.put_right()
        start = facts["Restarts"]
        instant = time.monotonic() + self.draw.uniform(0, 0.9 * seconds)
        fault = self.draw.choice(list(FAULTS))
        while time.monotonic() < instant:
            if self.state(number) != ("RUNNING", start):
                return ""
            time.sleep(0.1)
        update = max((line["update"] for line in train_lines(run)), default=0)
        nodes = self.cluster.run("scontrol", "show", "hostnames", facts["NodeList"]).split()
        self.say(f"{run.name}, job {number}, start {int(start) + 1}, about update {update}: {fault}")
        with FAULTS[fault](self, number, self.draw.choice(nodes), run) as lasting:
            end = time.monotonic() + (120 if lasting else 6)
            while self.state(number) == ("RUNNING", start) and time.monotonic() < end:
                time.sleep(0.2)
        if lasting and time.monotonic() >= end:
            raise AssertionError(f"job {number}: expected to end after {fault}, got it running still: {self.log(number)}")
        self.counts[fault] += 1
        return fault

    def state(self, number: str) -> tuple[str, str]:
        facts = self.cluster.job(number)
        return facts["JobState"], facts["Restarts"]

    def put_right(self) -> None:
        """What an administrator does about nodes that do not come back into service by themselves; told, and counted."""
        end = time.monotonic() + 20
        while (out := self.out_of_service()) and time.monotonic() < end:
            time.sleep(0.5)
        for node, state in out.items():
            with suppress(AssertionError):  # it has come back meanwhile
                self.cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
                self.say(f"{node} was {state}: put back into service")
                self.counts["nodes put back into service"] += 1

    def out_of_service(self) -> dict[str, str]:
        """Nodes that Slurm gives no work, and what it calls them."""
        states = dict(line.split() for line in self.cluster.run("sinfo", "-h", "-N", "-o", "%N %T").splitlines())
        return {node: state for node, state in states.items() if state.startswith(("drain", "down"))}

    def wait_for_a_start(self, number: str) -> dict[str, str]:
        """Slurm's facts once the job runs or has ended.

        A node that is back before Slurm has cleared it refuses a second start of the same job, which Slurm then holds. Elsewhere a node
        would have to hang for 120 s (cred_expire); here 5 are enough. What an administrator would do is done, and counted.
        """
        end = time.monotonic() + 180
        while True:
            facts = self.cluster.job(number)
            if facts["JobState"] in {"RUNNING"} | ENDED:
                return facts
            if "held" in facts["Reason"] or facts["Reason"] == "BadConstraints":
                for node in HOSTS:
                    with suppress(AssertionError):  # a node that needs it not
                        self.cluster.run("scontrol", "update", f"NodeName={node}", "State=RESUME")
                self.cluster.run("scontrol", "release", number)
                self.counts["held by Slurm, released"] += 1
            if time.monotonic() > end:
                nodes = self.cluster.run("sinfo", "-h", "-N", "-o", "%N %T %E").replace("\n", "; ")
                raise AssertionError(f"job {number}: expected it to run or to end within 180 s, got {facts}; nodes: {nodes}")
            time.sleep(1)

    def ranks(self, run: Path) -> list[int]:
        """The trainers' process ids."""
        found = []
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or [""]
            if f"run.folder={run}" in words and "python" in Path(words[0]).name:
                found.append(process.pid)
        return found

    def daemons(self, number: str) -> list[int]:
        """Process ids of what watches over the job's ranks on each host."""
        return [p.pid for p in psutil.process_iter(["cmdline"]) if (p.info["cmdline"] or [""])[0].startswith(f"slurmstepd: [{number}.0]")]

    def kill(self, pids: list[int], number: int = signal.SIGKILL) -> bool:
        """Whether there was one to kill."""
        for pid in pids:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return False
        return bool(pids)

    def one_of(self, pids: list[int]) -> list[int]:
        return [self.draw.choice(pids)] if pids else []


@contextmanager
def a_rank(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    yield soak.kill(soak.one_of(soak.ranks(run)))


@contextmanager
def all_ranks(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    yield soak.kill(soak.ranks(run))


@contextmanager
def a_step_daemon(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    yield soak.kill(soak.one_of(soak.daemons(number)))


@contextmanager
def a_batch_script(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    scripts = [
        p.pid for p in psutil.process_iter(["cmdline"]) if any(f"/job{int(number):05d}/" in word for word in p.info["cmdline"] or [])
    ]
    yield soak.kill(scripts)


@contextmanager
def a_host(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    soak.cluster.run("crash", node)
    yield True
    soak.wait_for_a_start(number)  # elsewhere
    soak.cluster.run("boot", node, HOSTS[node], "eth0", "slurmd", "-D")


@contextmanager
def a_short_stop(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    stopped = soak.one_of(soak.ranks(run))
    soak.kill(stopped, signal.SIGSTOP)
    time.sleep(soak.draw.uniform(0.5, 4))
    soak.kill(stopped, signal.SIGCONT)
    yield False


@contextmanager
def a_long_stop(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    """Longer than train.timeout_seconds: a hang."""
    yield soak.kill(soak.one_of(soak.ranks(run)), signal.SIGSTOP)


@contextmanager
def a_short_cut(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    soak.cluster.run("cable", node, "down")
    time.sleep(soak.draw.uniform(0.5, 4))
    soak.cluster.run("cable", node, "up")
    yield False


@contextmanager
def a_cut(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    soak.cluster.run("cable", node, "down")
    try:
        yield True
        soak.wait_for_a_start(number)  # elsewhere
    finally:
        soak.cluster.run("cable", node, "up")


@contextmanager
def a_preemption(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    flags = ["--partition=urgent", f"--nodelist={node}", "--exclusive", "--output=/dev/null", "--wrap=sleep 1"]
    soak.cluster.submit("sbatch", *flags, cwd=soak.folder)
    yield True


@contextmanager
def a_time_limit(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    soak.cluster.run("scancel", "--batch", "--signal=USR2", number)
    yield True


@contextmanager
def a_term(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    soak.cluster.run("scancel", "--signal=TERM", number)
    yield bool(soak.daemons(number))


@contextmanager
def a_requeue(soak: Soak, number: str, node: str, run: Path) -> Iterator[bool]:
    soak.cluster.run("scontrol", "requeue", number)
    yield True


FAULTS = {
    "a rank killed": a_rank,
    "all ranks killed": all_ranks,
    "a step's daemon killed": a_step_daemon,
    BATCH: a_batch_script,
    "a host killed": a_host,
    "a rank stopped for a while": a_short_stop,
    "a rank stopped for good": a_long_stop,
    "a cut that heals": a_short_cut,
    "a cut for good": a_cut,
    "preemption": a_preemption,
    "USR2 before a time limit": a_time_limit,
    "SIGTERM to the ranks": a_term,
    "scontrol requeue": a_requeue,
}


def soak_it(soak: Soak, faults: int) -> None:
    """Runs, until there were so many faults."""
    whole = soak.folder / "whole"
    started = time.monotonic()
    soak.run_to_its_end(whole, 0, 0)
    seconds = time.monotonic() - started
    soak.say(f"the undisturbed run took {seconds:.1f} s")
    done = 0
    while done < faults:
        run = soak.folder / f"run{soak.counts['runs equal to the undisturbed one'] + 1}"
        done += soak.run_to_its_end(run, min(FAULTS_PER_RUN, faults - done), seconds)
        compare(run, whole)
        soak.counts["runs equal to the undisturbed one"] += 1
        soak.say(f"{done} faults so far; {run.name} ended as the undisturbed one")


def main() -> None:
    """The command's door."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=25)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 10_000)
    arguments = parser.parse_args()
    lacks = what_it_lacks()
    if lacks:
        print(f"slurm_kills.py: skipped: a Slurm of three hosts needs {lacks}", file=sys.stderr)
        return
    os.environ["PYTHONPATH"] = str(ROOT)
    folder, failed = Path(tempfile.mkdtemp(prefix="soak-slurm-")), ""
    with running(NODES="3", CPUS="2", GPUS="0", CRED_SECONDS="5") as cluster:
        soak = Soak(cluster, folder, arguments.seed)
        try:
            soak_it(soak, arguments.faults)
        except AssertionError as error:
            failed = str(error)
    figures = {"seed": arguments.seed} | dict(soak.counts) | {"restarts": sum(soak.restarts)}
    print(json.dumps(figures | {"seconds": round(time.monotonic() - soak.began), "failed": failed}))
    if failed:
        sys.exit(1)
    shutil.rmtree(folder)


if __name__ == "__main__":
    main()
