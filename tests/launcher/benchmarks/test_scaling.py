"""`stillhouse bench --ranks`: the same updates on one rank and on two, and the collectives that two need."""

import json
from pathlib import Path

import pytest

from launcher.benchmarks.bench import run
from launcher.benchmarks.scaling.collectives import Call, costs
from launcher.commands.parser import parser


@pytest.mark.slow
def test_one_rank_and_two_train_the_same_and_the_bytes_are_the_gradients(corpus, fork_server, tmp_path: Path, monkeypatch, capsys):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    fork_server.fork_jobs(monkeypatch)
    file, folder = tmp_path / "scaling.json", tmp_path / "run"
    settings = [f"run.folder={folder}", f"data.shards={corpus.shards}", f"teacher.model={corpus.model}", "train.precision=fp32"]
    more = ["student.dropout=0", "train.zero_stage=1", "train.global_batch=8", "train.micro_batch=8"]
    words = ["--config", "tiny", *settings, *more, "--ranks", "2", "--updates", "1", "--json", str(file)]
    assert run(parser().parse_args(["bench", *words])) == 0
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
    assert "of apart" in capsys.readouterr().out
    assert not folder.exists()


def test_the_time_of_a_collective_begins_when_the_last_rank_comes():
    first = [Call("all_reduce", "backward", 400, 1.0, 4.0), Call("all_reduce", "step", 8, 10.0, 10.5)]
    second = [Call("all_reduce", "backward", 400, 3.0, 4.5), Call("all_reduce", "step", 8, 10.0, 10.25)]
    one, two = costs([first, second], updates=1)
    assert (one.phase, one.calls, one.size, one.moved, one.waited) == ("backward", 1, 400, 1.5, 1.0)
    assert (two.phase, two.moved, two.waited) == ("step", 0.5, 0.0)
    other = [Call("broadcast", "backward", 400, 3.0, 4.5), second[1]]
    with pytest.raises(ValueError, match="expected the same collective on all ranks, got all_reduce, broadcast"):
        costs([first, other], updates=1)


@pytest.mark.slow
def test_what_it_cannot_share_out_is_one_line(bench):
    assert bench("--ranks", "2", "--picture", "x.png") == (
        2,
        "stillhouse: --ranks: expected it without --peer and --picture, got both; leave one out\n",
    )
    assert bench("--config", "tiny", "data.shards=/nowhere", "--ranks", "2") == (
        2,
        "measuring tiny on 1 and 2 ranks …\n"
        "stillhouse: /nowhere: expected a folder of shards, got no folder; build it, or correct the path\n",
    )
