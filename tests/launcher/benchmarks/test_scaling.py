"""`stillhouse bench --ranks`: the same updates on one rank and on two, and the collectives that two need."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from launcher.benchmarks.scaling.collectives import Call, costs

ROOT = Path(__file__).parents[3]


def bench(*words: str) -> subprocess.CompletedProcess[str]:
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "launcher.cli", "bench", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | own, check=False)


@pytest.mark.slow
def test_one_rank_and_two_train_the_same_and_the_bytes_are_the_gradients(corpus, tmp_path: Path):
    file, run = tmp_path / "scaling.json", tmp_path / "run"
    settings = [f"run.folder={run}", f"data.shards={corpus.shards}", f"teacher.model={corpus.model}", "train.precision=fp32"]
    more = ["student.dropout=0", "train.zero_stage=1", "train.global_batch=8", "train.micro_batch=8"]
    done = bench("--config", "tiny", *settings, *more, "--ranks", "2", "--updates", "1", "--json", str(file))
    assert done.returncode == 0, done.stderr
    (case,) = json.loads(file.read_text())["scaling"]
    assert case["rows"] == 4  # a micro-batch of 8 has no place on two ranks
    assert case["one"] > 0
    assert case["apart"] > 0
    assert case["speedup"] == pytest.approx(case["together"] / case["one"])
    assert case["efficiency"] == pytest.approx(case["speedup"] / 2)
    (gradients,) = [one for one in case["collectives"] if one["phase"] == "backward"]
    assert gradients["calls"] == 1  # once an update, and the tied table once
    (weights,) = [one for one in case["collectives"] if one["name"] == "all_gather_into_tensor"]
    assert gradients["size"] / weights["size"] == pytest.approx(1, rel=0.01)  # fp32 both, and padding
    assert all(0 <= one["moved"] < 5 and one["waited"] >= 0 for one in case["collectives"])
    assert "of apart" in done.stdout
    assert not run.exists()


def test_the_time_of_a_collective_begins_when_the_last_rank_comes():
    first = [Call("all_reduce", "backward", 400, 1.0, 4.0), Call("all_reduce", "step", 8, 10.0, 10.5)]
    second = [Call("all_reduce", "backward", 400, 3.0, 4.5), Call("all_reduce", "step", 8, 10.0, 10.25)]
    one, two = costs([first, second], updates=1)
    assert (one.phase, one.calls, one.size, one.moved, one.waited) == ("backward", 1, 400, 1.5, 1.0)
    assert (two.phase, two.moved, two.waited) == ("step", 0.5, 0.0)
    other = [Call("broadcast", "backward", 400, 3.0, 4.5), second[1]]
    with pytest.raises(ValueError, match="expected the same collective on all ranks, got all_reduce, broadcast"):
        costs([first, other], updates=1)


def test_what_it_cannot_share_out_is_one_line():
    done = bench("--ranks", "2", "--picture", "x.png")
    assert done.returncode == 2
    assert done.stderr == "stillhouse: --ranks: expected it without --peer and --picture, got both; leave one out\n"
    done = bench("--config", "tiny", "data.shards=/nowhere", "--ranks", "2")
    assert done.returncode == 2
    assert done.stderr == "stillhouse: /nowhere: expected a folder of shards, got no folder; build it, or correct the path\n"
