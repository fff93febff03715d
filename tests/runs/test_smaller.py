"""A whole run on two ranks whose student is narrower than its teacher, made on the run's own text."""

import pytest
import torch
from run_lines import train_lines
from transformers import AutoModelForMaskedLM, AutoTokenizer

pytestmark = pytest.mark.slow
NARROWER = ("student.width=24", "student.heads=3", "student.architecture=same", "student.sample_tokens=1000")


def test_a_narrower_student_is_made_trained_and_exported(start, tmp_path):
    objective = "objective=[{kind: soft_targets, weight: 5.0}, {kind: mlm, weight: 2.0}]"
    run = start(tmp_path / "run", *NARROWER, objective, "teacher.mode=zero3", "train.updates=4", ranks=2)
    assert run.wait() == [0, 0], run.output
    lines = train_lines(tmp_path / "run")
    assert all(line["loss"] > 0 for line in lines)
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "run/student")
    assert (model.config.hidden_size, model.config.num_attention_heads, model.config.intermediate_size) == (24, 3, 48)
    ids = AutoTokenizer.from_pretrained(tmp_path / "run/student")("bade fi", return_tensors="pt")["input_ids"]
    assert torch.isfinite(model(ids).logits).all()
