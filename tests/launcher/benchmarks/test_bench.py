"""`stillhouse bench`: the plain loop and the trainer learn the same, and each figure comes from them."""

import json
from pathlib import Path

import pytest
import torch

from kd.batch import IGNORED, Batch
from launcher.benchmarks.peer import documents

pytestmark = pytest.mark.slow
STATES = "{kind: hidden_mse, layer_map: uniform}"


def test_the_figures_of_a_run_of_the_users_own(bench, corpus, tmp_path: Path):
    file, drawn, run = tmp_path / "bench.json", tmp_path / "bench.png", tmp_path / "run"
    settings = [f"run.folder={run}", f"data.shards={corpus.shards}", f"teacher.model={corpus.model}", "train.precision=fp32"]
    objective = f"objective=[{{kind: soft_targets}}, {{kind: mlm}}, {{kind: cosine}}, {STATES}]"
    words = ["--config", "tiny", *settings, objective, "student.dropout=0", "--updates", "2", "--json", str(file), "--picture", str(drawn)]
    code, said = bench(*words)
    assert code == 0, said
    (case,) = json.loads(file.read_text())["cases"]
    assert case["loss_difference"] < 1e-5  # the same weights, batches and losses, by another path
    assert case["trainer_seconds"] > 0
    assert case["plain_seconds"] > 0
    assert case["low"] <= case["ratio"] <= case["high"]
    assert 0 < case["utilisation"] < 1.5
    assert sum(case["time"].values()) == pytest.approx(1.0)
    assert case["time"]["time/report"] < 0.5  # the plain loop's time is no part of the trainer's
    assert "of plain" in said
    assert drawn.read_bytes().startswith(b"\x89PNG")
    assert not run.exists()


def test_what_it_cannot_measure_is_one_line(bench):
    assert bench("train.updates=3") == (
        2,
        "stillhouse: bench: expected --config with settings, got train.updates=3 alone; name the run's YAML\n",
    )
    assert bench("--config", "tiny", "--peer", "elsewhere") == (
        2,
        "stillhouse: --peer: expected it without --config, because its loss is fixed, got both; leave one out\n",
    )
    code, said = bench("--config", "tasks/sst2")
    assert code == 2
    assert "expected a run on shards (data.shards), got a task" in said
    assert said.count("\n") == 1


def test_the_peer_reads_the_documents_of_packed_windows_without_masks():
    ids = torch.tensor([[2, 9, 3, 2, 4, 8, 3, 0], [2, 7, 7, 7, 3, 0, 0, 0]])
    labels = torch.full_like(ids, IGNORED)
    labels[0, 4] = 5  # 4 hides it
    segments = torch.tensor([[1, 1, 1, 2, 2, 2, 2, 0], [1, 1, 1, 1, 1, 0, 0, 0]])
    rows, lengths = documents(Batch(ids, labels, ids, segments, torch.arange(2)))
    assert rows.tolist() == [[2, 9, 3, 0, 0], [2, 5, 8, 3, 0], [2, 7, 7, 7, 3]]
    assert lengths.tolist() == [3, 4, 5]
