"""A rank whose rows hold nothing for a term takes part in every collective, and the update is that of the other rank's rows."""

import json

import pytest

from kd.models.config import quiet_transformers


@pytest.mark.slow
def test_each_term_alone_trains_the_same_where_one_rank_has_nothing_to_look_at(make_model, tmp_path, run_ranks):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    narrow = {"hidden_size": 16, "intermediate_size": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    with quiet_transformers():
        make_model("bert", layers=4).save_pretrained(teacher)
        make_model("bert", seed=2, layers=2, **narrow).save_pretrained(student)
    reports = []
    for ranks in (1, 2):
        result = tmp_path / f"ranks-{ranks}.json"
        run_ranks(ranks, "terms_with_an_empty_rank", result, teacher, student)
        reports.append(json.loads(result.read_text()))
    for alone, shared in zip(*reports, strict=True):
        where = json.dumps(alone["term"])
        assert all(norm > 0 for norm in alone["norms"]), where
        assert shared["buckets"][0] == shared["buckets"][1], f"{where}: DeepSpeed's bucket of 5e8 would take 2 GB a rank"
        assert shared["losses"] == pytest.approx(alone["losses"], rel=5e-4, abs=1e-6), where
        assert shared["norms"] == pytest.approx(alone["norms"], rel=1e-3), where
        assert shared["weights"] == pytest.approx(alone["weights"], abs=5e-3), where
