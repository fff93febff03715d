"""The work of one update in counts, which no busy machine changes: products, collectives, logits at once, and questions to the device.

A GPU would make the host wait for such a question. A bound here may fall, and rises only with a reason.
"""

import json

import pytest
from trainer_on_ranks import VOCABULARY

from kd.models.config import quiet_transformers

CHUNK = 50  # of trainer_on_ranks
PRODUCTS = {"update": 16, "micro-batch": 66}
WAITS = {"training/trainer.py": 0, "training/read_back.py": 1, "training/engine.py": 3}  # an update; those of engine.py are DeepSpeed's own
ON_HOST = ("objective/selection.py:", "objective/head_rows.py:", "terms/pooling.py:", "copies.py:positions_of")
"""Code that reads a batch on the host, for any device (tests/kd/training/test_device_reads.py)."""
ON_CPU = ("objective/vocabulary_head.py:backward",)
"""Code that reads a value where the device is a CPU, and only there."""
COUNTS_AND_SUMS = 100  # bytes: the terms' counts and sums, tokens, norm and overflow
COLLECTIVES = {1: 0, 2: 7}  # an update, by ranks


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_an_update_stays_within_its_bounds(make_model, tmp_path, run_ranks, ranks: int):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    with quiet_transformers():
        make_model("bert", layers=3).save_pretrained(teacher)
        make_model("distilbert", seed=2, layers=2, dropout=0.0, attention_dropout=0.0).save_pretrained(student)
    run_ranks(ranks, "counts_on_ranks", tmp_path / "result.json", teacher, student)
    report = json.loads((tmp_path / "result.json").read_text())
    for precision in ("fp32", "bf16"):
        two, four = report[f"{precision} 2"], report[f"{precision} 4"]
        each = (four["calls"]["products"] - two["calls"]["products"]) / 2
        assert 0 < each <= PRODUCTS["micro-batch"]
        assert two["calls"]["products"] - 2 * each <= PRODUCTS["update"]
        # collectives belong to an update, not to a micro-batch
        assert two["calls"]["collectives"] == four["calls"]["collectives"] <= COLLECTIVES[ranks]

        if (
            ranks > 1
        ):  # each weight's gradient is reduced once an update, in fp32; the embeddings are the decoder's weight too, and count once
            for one in (two, four):
                assert 0 <= one["bytes"]["allreduce_"] - 4 * one["weights"] <= COUNTS_AND_SUMS

        for one in (two, four):
            assert one["largest_float64"] < one["weights"] / 10  # no gradient is copied to float64 for its norm
            for name in [name for name in one["waits"] if name.startswith((*ON_HOST, *ON_CPU))]:
                del one["waits"][name]
            for line, count in one["waits"].items():
                assert count <= WAITS.get(line.split(":")[0], 0), one["waits"]
        for line, count in four["waits"].items():
            if line.startswith(("models/", "teacher/", "training/")):  # encoders, engine and trainer ask nothing in a micro-batch
                assert count == two["waits"].get(line), line

        rows = [shape[0] for one in (two, four) for shape in one["shapes"] if len(shape) == 2 and shape[1] == VOCABULARY]
        assert 0 < max(rows) <= CHUNK  # never all tokens' logits at once
