"""Dropout does not depend on ranks, micro-batches or recomputed activations: losses agree to rounding, as without dropout."""

import json

import pytest

from kd.models.config import quiet_transformers


@pytest.mark.slow
def test_ranks_micro_batches_and_recomputed_activations_learn_the_same_with_dropout(make_model, tmp_path, run_ranks):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    with quiet_transformers():
        make_model("bert", layers=3).save_pretrained(teacher)
        make_model("distilbert", seed=2, layers=2, dropout=0.3, attention_dropout=0.2).save_pretrained(student)
    losses, torchs = {}, []
    for ranks in (1, 2):
        result = tmp_path / f"ranks-{ranks}.json"
        run_ranks(ranks, "dropout_on_ranks", result, teacher, student)
        report = json.loads(result.read_text())
        torchs.append(report.pop("torch's dropout"))
        losses |= {f"{ranks} ranks, {name}": one for name, one in report.items()}
    assert len(losses) == 6
    first, *others = losses.values()
    for one in others:
        assert one == pytest.approx(first, rel=2e-5)
    assert torchs[0] != pytest.approx(torchs[1], rel=1e-3)  # so the model does drop enough to see a difference
    assert torchs[0] != pytest.approx(first, rel=1e-3)
