"""Runs as processes: real processes of a stand-in for launcher/run.py, which writes what a run writes and takes no time."""

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from rich.console import Console

from launcher.comparison import jobs
from launcher.comparison.jobs import Job, job_environment, last_words, run_jobs
from launcher.errors import LaunchError
from launcher.process.signals import CAUGHT, Exit
from launcher.run_folder.lock import owner_of

ROOT = Path(__file__).resolve().parents[3]
STAND_IN = """
import json, os, pathlib, signal, sys, time
words = dict(word.split("=", 1) for word in sys.argv[3:])
folder = pathlib.Path(words["run.folder"])
signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
rank = os.environ.get("RANK", "0")
with (folder.parent / "starts.txt").open("a") as file:
    file.write(f"{folder.name} {rank}/{os.environ.get('WORLD_SIZE', '1')} {os.environ['OMP_NUM_THREADS']} {time.monotonic()}\\n")
sys.stdout.write(f"rank {rank}\\n")  # one write: ranks share the file
sys.stdout.flush()
if words.get("fail"):
    print("stillhouse: expected better, got worse; correct it", file=sys.stderr)
    sys.exit(int(words["fail"]))
while not pathlib.Path(words["until"]).exists():
    time.sleep(0.01)
if rank == "0":
    (folder / "metrics.jsonl").write_text(json.dumps({"kind": "train", "update": 4, "loss": 1.0}) + "\\n")
    (folder / "student").mkdir()
    (folder / "report.json").write_text("{}")
"""


@pytest.fixture(autouse=True)
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-in is what jobs start, they are looked at often, and this process's signal handlers are put back."""
    script = tmp_path / "stand_in.py"
    script.write_text(STAND_IN, encoding="utf-8")
    monkeypatch.setattr(jobs, "SCRIPT", script)
    monkeypatch.setattr(jobs, "POLL_SECONDS", 0.02)
    before = {number: signal.getsignal(number) for number in CAUGHT}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def job(tmp_path: Path) -> Callable[..., Job]:
    """job(name, *words): a job that waits for a file that is there, unless a word says otherwise."""
    (tmp_path / "now").touch()

    def make(name: str, *words: str) -> Job:
        folder = tmp_path / name
        return Job(name, folder, "tiny", (f"run.folder={folder}", f"until={tmp_path / 'now'}", *words), 4)

    return make


def run(work: list[Job], ranks: int = 1, side_by_side: int = 1) -> tuple[int, list[tuple[str, int]]]:
    """(exit code, (name, code) of each job in the order they ended)."""
    ended: list[tuple[str, int]] = []
    code = run_jobs(work, ranks, side_by_side, Console(file=io.StringIO()), lambda job, code: ended.append((job.name, code)))
    return code, ended


def starts(tmp_path: Path) -> list[list[str]]:
    return [line.split() for line in (tmp_path / "starts.txt").read_text().splitlines()]


def test_jobs_run_in_their_order_and_those_done_are_not_started_again(job, tmp_path: Path):
    work = [job("a"), job("b"), job("c")]
    assert run(work) == (Exit.DONE, [("a", 0), ("b", 0), ("c", 0)])
    assert [start[0] for start in starts(tmp_path)] == ["a", "b", "c"]
    assert work[0].updates_done == 4
    code, ended = run([*work, job("d")])
    assert (code, sorted(ended)) == (Exit.DONE, [("a", 0), ("b", 0), ("c", 0), ("d", 0)])
    assert [start[0] for start in starts(tmp_path)] == ["a", "b", "c", "d"]


def test_a_job_that_fails_is_told_in_its_own_words_and_the_others_go_on(job, tmp_path: Path):
    bad = job("bad", "fail=2")
    assert run([bad, job("good")]) == (Exit.FAILED, [("bad", 2), ("good", 0)])
    assert last_words(bad) == "expected better, got worse; correct it"
    assert last_words(job("never")) == "it said nothing"


def test_two_side_by_side_run_at_the_same_time_and_share_the_processors(job, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    gate = f"until={tmp_path / 'both'}"
    work = [job("a", gate), job("b", gate)]

    def open_when_both_run() -> None:
        end = time.monotonic() + 30
        while len(starts(tmp_path) if (tmp_path / "starts.txt").exists() else []) < 2 and time.monotonic() < end:
            time.sleep(0.01)
        (tmp_path / "both").touch()

    opener = threading.Thread(target=open_when_both_run)
    opener.start()
    code, ended = run(work, side_by_side=2)
    opener.join()
    assert (code, sorted(ended)) == (Exit.DONE, [("a", 0), ("b", 0)])
    assert [start[2] for start in starts(tmp_path)] == ["4", "4"], "8 processors for 2 x 1 ranks"


def test_ranks_are_started_as_a_launcher_would(job, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert run([job("a")], ranks=2)[0] == Exit.DONE
    assert sorted(start[1] for start in starts(tmp_path)) == ["0/2", "1/2"]
    assert sorted((tmp_path / "a" / "output.txt").read_text().split("\n"))[-2:] == ["rank 0", "rank 1"]


def test_a_signal_is_passed_on_and_nothing_more_is_started(job, tmp_path: Path):
    def interrupt() -> None:
        while not (tmp_path / "starts.txt").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    code, ended = run([job("a", f"until={tmp_path / 'never'}"), job("b")])
    thread.join()
    assert (code, ended) == (Exit.SAVED_AFTER_SIGNAL, [])
    assert [start[0] for start in starts(tmp_path)] == ["a"]


def test_a_run_that_somebody_else_still_owns_is_waited_for(job, tmp_path: Path):
    """A killed comparison leaves its runs going: the next start takes what they finish."""
    owned = job("owned")
    owned.folder.mkdir()
    code = "import pathlib, sys, time; from launcher.run_folder.lock import owned\nwith owned(pathlib.Path(sys.argv[1])): time.sleep(60)"
    owner = subprocess.Popen([sys.executable, "-c", code, str(owned.folder)], cwd=ROOT)
    while owner_of(owned.folder) is None:
        time.sleep(0.01)

    def finish() -> None:
        while not (tmp_path / "b" / "report.json").exists():
            time.sleep(0.01)
        (owned.folder / "student").mkdir()
        (owned.folder / "report.json").write_text("{}")
        owner.kill()
        owner.wait()

    thread = threading.Thread(target=finish)
    thread.start()
    code, ended = run([owned, job("b")])
    thread.join()
    assert (code, sorted(ended)) == (Exit.DONE, [("b", 0), ("owned", 0)])
    assert [start[0] for start in starts(tmp_path)] == ["b"]


def test_a_run_that_ends_while_its_owner_is_looked_for_is_not_started_again(job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def ends(folder: Path) -> None:
        (folder / "student").mkdir(parents=True)
        (folder / "report.json").write_text("{}")

    monkeypatch.setattr(jobs, "owner_of", ends)
    assert run([job("owned")]) == (Exit.DONE, [("owned", 0)])
    assert not (tmp_path / "starts.txt").exists()


def test_a_job_does_not_inherit_the_ranks_of_a_launcher_above(monkeypatch: pytest.MonkeyPatch):
    for name, value in (("RANK", "3"), ("WORLD_SIZE", "8"), ("MASTER_PORT", "1234"), ("MINE", "kept")):
        monkeypatch.setenv(name, value)
    own = job_environment(1)
    assert not {"RANK", "WORLD_SIZE", "MASTER_PORT"} & own.keys()
    assert own["MINE"] == "kept"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert job_environment(1)["OMP_NUM_THREADS"] == "3", "who has set it has a reason"


def test_more_ranks_than_gpus_are_one_line(monkeypatch: pytest.MonkeyPatch):
    import torch  # noqa: PLC0415

    monkeypatch.setattr(jobs.process_group, "device", lambda: torch.device("cuda"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    jobs.check_devices(1, 2)
    with pytest.raises(LaunchError, match="--ranks x --jobs: expected at most 2, the GPUs here, got 2 x 2; lower either"):
        jobs.check_devices(2, 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert [job_environment(1, 2, slot)["CUDA_VISIBLE_DEVICES"] for slot in (0, 1)] == ["4", "5"]
