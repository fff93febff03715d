"""Every term on one and two ranks: each kind of teacher, alone and two together, ZeRO stage and micro-batch, activation checkpoints."""

import json

import pytest
from terms_on_ranks import TERMS, UPDATES

from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder


@pytest.mark.slow
def test_every_teacher_stage_micro_batch_and_number_of_ranks_gives_the_same_values_of_every_term(make_model, tmp_path, run_ranks):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    narrow = {"hidden_size": 16, "intermediate_size": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    with quiet_transformers():
        make_model("bert", layers=4).save_pretrained(teacher)
        model = make_model("bert", seed=2, layers=2, **narrow)
        model.save_pretrained(student)
    expected = None
    for ranks in (1, 2):
        result = tmp_path / f"ranks-{ranks}.json"
        run_ranks(ranks, "terms_on_ranks", result, teacher, student, tmp_path / f"checkpoints-{ranks}")
        for name, seen in json.loads(result.read_text()).items():
            where = f"{ranks} ranks, {name}"
            expected = expected or seen
            exact = "bf16" not in name
            assert len(seen["terms"]) == UPDATES
            assert len(seen["terms"][0]) == len(TERMS)
            for update, (terms, wanted) in enumerate(zip(seen["terms"], expected["terms"], strict=True)):
                # fp32: sums in another order; bf16: 8 bits of mantissa through 4 layers
                assert terms == pytest.approx(wanted, rel=5e-4 if exact else 0.15, abs=1e-5 if exact else 0.03), f"{where}, update {update}"
            assert seen["norms"] == pytest.approx(expected["norms"], rel=1e-3 if exact else 0.2), where
            if exact:
                assert seen["weights"] == pytest.approx(expected["weights"], abs=5e-3), where
            assert seen["bit_identical"], where
            assert seen["snapshot"] == sorted(name for name, _ in Encoder(model).named_parameters()), where
            assert any(key.startswith("projections.") for key in seen["weights"])
