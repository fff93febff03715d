"""A train line: the shares of time, and the rate of a rank."""

import pytest

from kd.training.update_report import UpdateReport
from launcher.reporting.train_line import Throughput, shares_of_time, train_line

MEANS = {"loss": 2.0, "tokens_per_second": 300.0, "data_wait_share": 0.0, "seconds_per_update": 0.5}


def test_parts_of_an_update_sum_to_one_and_evaluations_are_no_part():
    seconds = {
        "data": 1.0,
        "teacher": 2.0,
        "forward": 1.0,
        "head": 2.0,
        "backward": 2.0,
        "step": 1.0,
        "counting": 0.25,
        "agreeing": 0.25,
        "reporting": 0.5,
    }
    shares = shares_of_time(seconds | {"evaluation": 70.0, "saving": 9.0, "writing": 8.0})
    assert shares == pytest.approx(
        {
            "time/data": 0.1,
            "time/teacher": 0.2,
            "time/forward": 0.1,
            "time/head": 0.2,
            "time/backward": 0.2,
            "time/step": 0.1,
            "time/collectives": 0.05,
            "time/report": 0.05,
        }
    )
    assert shares_of_time({}) == {}


def test_the_line_has_the_rate_of_a_rank_and_the_expected_tokens():
    report = UpdateReport(4, 2.0, {}, 1.0, 0.1, True, 8, 2, phase="first")
    line = train_line(report, MEANS, updates=12, tokens=400, epoch=0.5, skipped=1, elapsed_seconds=3.0, world=3, phase_seconds={})
    assert (line["tokens_per_second_per_rank"], line["tokens_total"], line["seconds_left"]) == (100.0, 1200, 4.0)
    assert (line["skipped_updates"], line["phase"], line["elapsed_seconds"]) == (1, "first", 3.0)
    assert "seconds_per_update" not in line


def test_two_slow_lines_in_a_row_are_said_once_and_a_good_one_begins_anew():
    watch = Throughput()
    assert [watch.judge(100.0) for _ in range(10)] == [None] * 10
    said = [watch.judge(rate) for rate in (40.0, 90.0, 40.0, 40.0, 40.0, 100.0, 10.0, 10.0)]
    assert [text is not None for text in said] == [False, False, False, True, False, False, False, True]
    assert said[3] == "40 tokens/s, below half of the median of 100; see data_wait_share and the machine's other work"


def test_a_run_of_few_lines_is_never_slow():
    watch = Throughput()
    assert [watch.judge(rate) for rate in (100.0,) * 9 + (1.0, 1.0)] == [None] * 11
