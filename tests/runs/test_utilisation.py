"""Model FLOPs utilisation of a whole run, against FLOPs that are counted here by hand from the models' sizes."""

import json

import pytest
from run_lines import lines

pytestmark = pytest.mark.slow
WIDTH, INNER, WINDOW, VOCABULARY, ROWS = 32, 64, 32, 29, 8
LAYERS = {"teacher": 4, "student": 2}


def test_the_utilisation_of_two_ranks_is_their_flops_over_the_time_and_the_measured_rate(start, tmp_path):
    run = start(tmp_path / "run", ranks=2)
    assert run.wait() == [0, 0], run.output
    gemm = json.loads((tmp_path / "run" / "environment.json").read_text())["gemm"]
    assert gemm["precision"] == "fp32"
    assert gemm["tflops"] == pytest.approx(2 * gemm["tflops_per_rank"])
    assert 0.001 < gemm["tflops_per_rank"] < 10
    layer = 2 * (4 * WIDTH * WIDTH + 2 * WIDTH * INNER) + 4 * WINDOW * WIDTH
    passes = layer * (LAYERS["teacher"] + 3 * LAYERS["student"])
    head = 2 * (VOCABULARY * WIDTH + WIDTH * WIDTH) * (1 + 3)  # at all positions, because soft_targets reads them
    before = 0
    for line in lines(tmp_path / "run", "train"):
        tokens = line["tokens"] - before
        before = line["tokens"]
        flops = 2 * ROWS * WINDOW * passes + tokens * head  # a line is about two updates
        seconds = tokens / line["tokens_per_second"]
        assert line["tflops"] == pytest.approx(flops / seconds / 1e12, rel=1e-6)
        assert line["utilisation"] == pytest.approx(line["tflops"] / gemm["tflops"], rel=1e-6)
        assert 0 < line["utilisation"] < 1.2
    assert before > 0
