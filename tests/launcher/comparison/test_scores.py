"""A comparison's scores are those of `stillhouse evaluate` on the same windows, computed once and read again."""

import json
from pathlib import Path

import pytest

from launcher.comparison.scores import RunScores
from launcher.evaluation.evaluate import score
from launcher.evaluation.scoring import with_retention

pytestmark = pytest.mark.slow


@pytest.fixture
def finished_run(save_model, corpus, tmp_path: Path) -> Path:
    """The folder of a run, as far as scoring reads it."""
    folder = tmp_path / "run"
    save_model(folder / "student", corpus.vocabulary, seed=8, layers=2)
    report = {"updates": 4, "tokens": 4000, "elapsed_seconds": 3.0, "parameters": 10, "bytes": 40}
    (folder / "report.json").write_text(json.dumps(report))
    line = {"kind": "train", "update": 4, "tokens": 4000, "tokens_per_second": 2000.0, "memory_gb": 0.5}
    (folder / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    return folder


def test_a_runs_scores_are_those_of_the_evaluate_verb(finished_run: Path, make_config, corpus, tmp_path: Path):
    base = make_config()
    settings = base.data.stream.model_copy(update={"seed": 7})
    teacher, student = score(
        [str(finished_run / "student")], str(corpus.shards), str(corpus.model), settings, windows=16, batch=base.evaluate.batch
    )
    scores = RunScores(base, 16)
    row, teacher_row = scores.of_run(finished_run, 7), scores.of_teacher(tmp_path, 7)
    for key in ("loss", "top1", "top5", "kl", "agreement", "tokens"):
        assert row[key] == student[key], key
    assert teacher_row is not None
    assert teacher_row["top1"] == teacher["top1"]
    assert with_retention(row, teacher_row)["retention"] == student["retention"]
    assert (row["learning_seconds"], row["tokens_per_second"], row["memory_gb"]) == (2.0, 2000.0, 0.5)
    assert len(row["similarity"]) == 2
    assert row["similarity_last"] == row["similarity"][-1][-1]
    assert scores.of_run(finished_run, 8)["top1"] == row["top1"], "read from scores.json, whatever the seed"
    other = RunScores(base, 8).of_run(finished_run, 7)
    assert other["tokens"] < row["tokens"], "another number of windows is scored anew"
