"""train.compile: updates are the plain ones to rounding, on ranks, with dropout and recomputed activations; resumed ones are the same."""

import json

import pytest

from kd.models.config import quiet_transformers

TOLERANCE = {"fp32": 2e-5, "bf16": 4e-3}


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_compiled_layers_learn_what_plain_ones_learn(make_model, tmp_path, run_ranks, ranks: int):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    with quiet_transformers():
        make_model("bert", layers=3).save_pretrained(teacher)
        make_model("distilbert", seed=2, layers=2, dropout=0.3, attention_dropout=0.2).save_pretrained(student)
    run_ranks(ranks, "compiled_on_ranks", tmp_path / "result.json", teacher, student, tmp_path / "checkpoints")
    report = json.loads((tmp_path / "result.json").read_text())
    assert len(report) == 3 // ranks
    for name, one in report.items():
        tolerance = TOLERANCE[name.split(",")[0]]
        assert one["said"] == ["student 2 of 2 layers", "teacher 3 of 3 layers"]
        assert one["graphs"] > 1, name  # so something was compiled
        assert one["more_graphs"] == 0, name  # every update runs the code of the first
        for plain, compiled in (one["losses"], one["norms"]):
            assert compiled == pytest.approx(plain, rel=tolerance), name
        assert one["names"]
        assert one["furthest"] < 3 * tolerance, name
        assert one["bit_identical"], name
        assert one["plain_copies"]
