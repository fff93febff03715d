"""What the other ranks do when one crawls, hangs, runs out of memory, or is not what they are: one line each, in a stated time."""

import os
import resource
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest
from run_lines import lines

from kd.checkpoint.on_disk import TEMPORARY
from kd.distributed.rank_progress import BUSY
from stillhouse.files import temporary_path

pytestmark = [pytest.mark.slow, pytest.mark.faults]
ROOT = Path(__file__).resolve().parents[2]
HASTY = {
    "launcher.training.rank_watch.BEAT_SECONDS": 0.25,
    "launcher.training.rank_watch.GRACE_SECONDS": 1.0,
    "launcher.training.stragglers.AT_LEAST_SECONDS": 0.25,
}
"""A quarter of what a user waits for."""
LONG = ("train.updates=100000", "checkpoint.every_updates=20", "report.every_updates=20", "evaluate.every_updates=null")


def said(log: Path) -> list[str]:
    """A rank's lines to the user."""
    return [line for line in log.read_text().splitlines() if line.startswith("stillhouse:")]


def test_a_slow_rank_is_named_and_one_that_hangs_ends_the_run_on_every_rank(start, tmp_path):
    """Ten times slower: stopped for nine tenths of the time. Then stopped for good: named within timeout_seconds and GRACE_SECONDS more."""
    settings = (*LONG, "train.timeout_seconds=2", "report.every_updates=5", "checkpoint.every_updates=null")
    run = start(tmp_path / "run", *settings, ranks=2, constants=HASTY)
    run.wait_for_update(20)
    slow = run.processes[1].pid
    end = time.monotonic() + 60
    while not (found := [line for line in lines(run.folder, "event") if line["event"] == "straggler"]):
        assert time.monotonic() < end, run.output
        os.kill(slow, signal.SIGSTOP)
        time.sleep(0.36)
        os.kill(slow, signal.SIGCONT)
        time.sleep(0.04)
    assert found[0]["message"].startswith("rank 1 on ")
    assert any(f" s in {phase} since" in found[0]["message"] for phase in BUSY), found
    os.kill(slow, signal.SIGSTOP)
    assert run.processes[0].wait(60) == 76, run.output
    os.kill(slow, signal.SIGCONT)
    assert run.processes[1].wait(60) == 76, run.output
    (first,), (second,) = (said(log) for log in run.logs)
    assert "rank 0 on " in first
    assert "lost rank 1 on " in first
    assert f"(pid {slow})" in first
    assert " of update " in first
    assert "rank 1 on " in second
    assert "Traceback" not in run.output


def test_a_disk_that_takes_longer_than_the_timeout_is_waited_for(start, tmp_path):
    """A pipe in the place of a file: who opens it waits for a reader. Afterwards it cannot be synced, which is a failed checkpoint."""
    run = start(tmp_path / "run", *LONG, "train.timeout_seconds=2", ranks=2, constants=HASTY)
    pipe = temporary_path(run.folder / "checkpoints" / f"{TEMPORARY}latest")
    while not [line for line in lines(run.folder, "event") if line["event"] == "checkpoint"]:
        assert all(process.poll() is None for process in run.processes), run.output
        time.sleep(0.005)
    os.mkfifo(pipe)
    time.sleep(5)  # a rank that is waited for in vain is left after 2 s, 1 s to look again, and 1 s for its last words
    assert [process.poll() for process in run.processes] == [None, None], run.output
    before = len(lines(run.folder, "train"))
    time.sleep(0.5)
    assert len(lines(run.folder, "train")) == before, "the pipe did not stop the run"
    with pipe.open("rb"):
        run.wait_for_update(20 * (before + 3))
    assert "checkpoint_failed" in [line["event"] for line in lines(run.folder, "event")], run.output


def test_a_rank_without_memory_says_what_it_asked_for_and_all_leave(start, tmp_path):
    run = start(tmp_path / "run", *LONG, ranks=2)
    run.wait_for_update(20)
    poor = psutil.Process(run.processes[1].pid)
    resource.prlimit(poor.pid, resource.RLIMIT_AS, (poor.memory_info().vms, resource.RLIM_INFINITY))
    assert run.wait(60) == [76, 4], run.output
    (first,), (second,) = (said(log) for log in run.logs)
    assert "stillhouse: rank 1 on " in second
    assert "expected memory for " in second
    assert " asked for; lower train.micro_batch" in second
    assert "rank 1 on " in first.removeprefix("stillhouse: ")
    assert "asked for" in first
    assert "Traceback" not in run.output


def test_ranks_with_other_code_or_other_data_are_refused_with_the_difference(start, tmp_path, monkeypatch):
    other = tmp_path / "other"
    for room in ("stillhouse", "kd", "data_shards", "launcher", "configs"):
        shutil.copytree(ROOT / room, other / room)
    with (other / "kd" / "batch.py").open("a") as file:
        file.write("\n# changed\n")
    run = start(tmp_path / "run", *LONG, ranks=2, roots={1: other})
    assert run.wait(60) == [2, 2], run.output
    (line,) = said(run.logs[0])
    assert "expected each to have what rank 0 on " in line
    assert [place for place in run.logs[0].read_text().splitlines() if place.startswith("  rank 1 on ") and ": code: " in place]
    assert not (tmp_path / "run" / "checkpoints").exists()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("checkpoint.keep_last=1000000000",), " free for checkpoints, got "),
        (("run.folder=/proc/run",), "/proc/run: expected a folder that can be written, got "),
    ],
)
def test_what_rank_0_alone_can_check_ends_every_rank_at_once(start, tmp_path, settings: tuple[str, ...], words: str):
    run = start(tmp_path / "run", *LONG, *settings, "train.timeout_seconds=600", ranks=2)
    assert run.wait(60) == [2, 2], run.output
    (line,) = said(run.logs[0])
    assert words in line


def test_a_damaged_shard_that_rank_0_alone_reads_ends_every_rank_with_its_line(start, school, tmp_path):
    shards = tmp_path / "shards"
    shutil.copytree(school.shards, shards)
    for path in shards.glob("train-*.tar"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    objective = "objective=[{kind: mlm}, {kind: hidden_mse, layer_map: cka}]"
    run = start(tmp_path / "run", *LONG, f"data.shards={shards}", objective, "train.timeout_seconds=600", ranks=2)
    assert run.wait(60) == [2, 2], run.output
    (line,) = said(run.logs[0])
    assert "train-" in line
    assert "Traceback" not in run.output
