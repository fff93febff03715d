"""Faults of hosts and networks on a real Slurm, with the real trainer: what goes on is bit for bit what was never disturbed."""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_lines import facts, lines, train_lines
from safetensors.torch import load_file
from school import make_school
from stand_in import ROOT, SCRIPT

pytestmark = [pytest.mark.slow, pytest.mark.cluster]
ADDRESS = {"node1": "198.51.100.11", "node2": "198.51.100.12"}


@pytest.fixture(scope="module")
def train(slurm: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., tuple[str, Path]]:
    """train(name): the number of a job of two ranks on node1 and node2, and its run folder."""
    folder = tmp_path_factory.mktemp("faults")
    school = make_school(folder)

    def submit(name: str) -> tuple[str, Path]:
        settings = [
            f"run.folder={folder / name}",
            f"data.shards={school.shards}",
            f"teacher.model={school.teacher}",
            "train.updates=200",
            "train.timeout_seconds=8",
            "checkpoint.every_updates=20",
            "report.every_updates=10",
            "evaluate.every_updates=100",
        ]
        environment = {
            "STILLHOUSE_PYTHON": sys.executable,
            "STILLHOUSE_REQUEUE_ON": "75 76",
            "OMP_NUM_THREADS": "1",
        }
        words = ["--nodes=2", "--nodelist=node1,node2", "--ntasks-per-node=1", f"--job-name={name}", str(SCRIPT), "--config"]
        number = slurm.submit("sbatch", *words, str(ROOT / "configs" / "tiny.yaml"), *settings, cwd=folder, **environment)
        return number, folder / name

    return submit


def wait_for_update(run: Path, update: int, timeout_seconds: float = 200) -> None:
    end = time.monotonic() + timeout_seconds
    while not any(line["update"] >= update for line in train_lines(run)):
        assert time.monotonic() < end, "\n".join(log.read_text() for log in run.parent.glob("*.out"))
        time.sleep(0.02)


def test_a_cut_that_heals_a_signal_and_a_host_that_dies_leave_no_trace_in_the_run(slurm: Any, train: Any):
    number, whole = train("whole")
    assert slurm.wait(number, timeout_seconds=200)["JobState"] == "COMPLETED", (whole.parent / f"whole-{number}.out").read_text()
    assert [line["update"] for line in train_lines(whole)] == list(range(10, 201, 10))
    assert list((whole / "student").glob("*.safetensors"))

    number, hurt = train("hurt")
    log = hurt.parent / f"hurt-{number}.out"
    wait_for_update(hurt, 20)
    slurm.run("cable", "node2", "down")  # for two seconds: nothing but a pause
    time.sleep(2)
    slurm.run("cable", "node2", "up")
    wait_for_update(hurt, 50)
    assert slurm.job(number)["Restarts"] == "0", log.read_text()
    slurm.run("scancel", "--batch", "--signal=USR2", number)
    slurm.wait_for_restart(number, 1)
    wait_for_update(hurt, max(line["update"] for line in train_lines(hurt)) + 30)
    slurm.run("crash", "node2")
    end = time.monotonic() + 150
    while slurm.job(number)["Restarts"] != "2":
        assert time.monotonic() < end, log.read_text()
        time.sleep(0.2)
    slurm.run("boot", "node2", ADDRESS["node2"], "eth0", "slurmd", "-D")
    facts_of_job = slurm.wait(number, timeout_seconds=200)
    assert (facts_of_job["JobState"], facts_of_job["ExitCode"]) == ("COMPLETED", "0:0"), log.read_text()

    assert facts(hurt) == facts(whole), "metrics without gap or repeat, the same windows and losses"
    assert facts(hurt, "heldout") == facts(whole, "heldout")
    expected = load_file(whole / "student" / "model.safetensors")
    assert all((weight == expected[name]).all() for name, weight in load_file(hurt / "student" / "model.safetensors").items())
    assert [line["event"] for line in lines(hurt, "event")].count("resumed") >= 1
    assert json.loads((hurt / "report.json").read_text())["updates"] == 200


def test_a_network_that_is_cut_for_good_is_one_line_and_76_on_each_rank(slurm: Any, train: Any):
    number, run = train("cut")
    places = [run.parent / f"cut-{number}.out", run.parent / f"stillhouse-{number}" / "rank-1.log"]
    wait_for_update(run, 10)
    try:
        slurm.run("cable", "node2", "down")
        end = time.monotonic() + 120  # timeout_seconds + 10 on a machine with nothing else to do
        told: list[list[str]] = [[], []]
        while not all(told):
            assert time.monotonic() < end, told
            time.sleep(0.2)
            told = [[line for line in place.read_text().splitlines() if line.startswith("stillhouse: ")] for place in places]
        (first,), (second,) = told
        assert first.startswith("stillhouse: rank 0 on node1: lost rank 1 on node2 (pid ")
        assert ": no sign of life for " in first
        assert second.startswith("stillhouse: rank 1 on node2: lost rank 0, where the ranks meet: not heard of for ")
        code = run.parent / f"stillhouse-{number}" / "code-1"
        while not code.exists() or not code.read_text().strip():
            assert time.monotonic() < end
            time.sleep(0.2)
        assert code.read_text().startswith("76 ")
    finally:
        slurm.run("cable", "node2", "up")
        slurm.run("scancel", number)
        slurm.wait(number, timeout_seconds=100)
