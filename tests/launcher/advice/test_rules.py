"""The front, the choice and the cases of `stillhouse advise`, on figures whose answer is worked out by hand."""

from pathlib import Path

import pytest

from launcher.advice.option import Option
from launcher.advice.rules import Limits, cheapest, nearest, pareto, rules

LIMITS = Limits(10.0, 50.0, 0.97, None, None)


def option(name: str, form: str, retained: float | None, megabytes: float, p95: float | None, **more) -> Option:
    values = {"value": retained, "retained": retained, "bytes": int(megabytes * 1e6), "p95_ms": p95, "cpu_ms": p95, **more}
    return Option(name, form, Path(name), name == "teacher", "accuracy", **values)


TEACHER = option("teacher", "torch fp32", 1.0, 400, 60.0)
SMALL = option("teacher", "onnx int8", 0.99, 110, 20.0)
STUDENT = option("student", "onnx int8", 0.975, 40, 8.0, seconds=3600.0)
SLOW = option("student", "torch fp32", 0.98, 160, 30.0, seconds=3600.0)
TINY = option("tiny", "onnx int8", 0.9, 10, 2.0, seconds=600.0)
ALL = [TEACHER, SMALL, STUDENT, SLOW, TINY]


def test_the_front_has_every_model_that_no_other_equals_or_beats():
    assert [one.title for one in pareto(ALL)] == ["teacher, torch fp32", "teacher, onnx int8", "student, onnx int8", "tiny, onnx int8"]
    doubtful = option("x", "onnx int8", 1.5, 1, 0.1, trusted=False)
    assert pareto([doubtful, option("y", "onnx int8", 1.5, 1, None)]) == [], "a doubtful or missing time is on no front"
    twin = option("twin", "onnx int8", 0.9, 10, 2.0)
    assert pareto([TINY, twin]) == [TINY, twin]


def test_the_cheapest_is_the_fastest_within_all_limits():
    assert cheapest(ALL, LIMITS) is STUDENT
    assert cheapest(ALL, Limits(None, None, 0.5, None, None)) is TINY
    assert cheapest(ALL, Limits(5.0, 50.0, 0.97, None, None)) is None


def test_the_nearest_misses_its_worst_limit_by_the_smallest_factor():
    limits = Limits(5.0, 50.0, 0.97, None, None)
    # teacher 60/5 = 12, its INT8 20/5 = 4, student 8/5 = 1.6, slow 30/5 = 6, tiny 0.97/0.9 = 1.08
    assert nearest(ALL, limits) is TINY
    assert nearest([one for one in ALL if one is not TINY], limits) is STUDENT
    assert nearest([option("x", "onnx int8", 1.0, 1, None)], limits) is None
    assert nearest([option("x", "onnx int8", 1.0, 1, 3.0, trusted=False)], limits) is None


def test_a_measured_figure_beyond_its_limit_decides_without_the_others():
    assert LIMITS.misses(option("x", "torch fp32", None, 51, None))
    assert not LIMITS.misses(option("x", "torch fp32", None, 50, None))
    assert not LIMITS.misses(option("x", "torch fp32", 1.0, 50, 11.0, trusted=False)), "a doubtful time decides nothing"


def test_a_teacher_within_the_limits_is_enough():
    enough, *_ = rules(ALL, Limits(25.0, 120.0, 0.97, None, None))
    assert enough.applies is True
    assert enough.text == "teacher, onnx int8 meets every limit: 20.00 ms, 110.0 MB, 99.0% retained"
    assert rules(ALL, LIMITS)[0].applies is False
    unknown = rules([TEACHER, STUDENT], LIMITS)[0]
    command = "stillhouse export teacher --precision int8 --out shipped/TASK-teacher-int8 --task-config TASK"
    assert (unknown.applies, unknown.text) == (None, f"not measured: no INT8 export of the teacher; run: {command}")


def test_a_gap_beyond_the_least_retention_is_named_with_its_interval():
    best = option("student", "torch fp32", 0.96, 40, 8.0, retained_interval=[0.95, 0.98])
    gap = rules([TEACHER, best], LIMITS)[1]
    assert gap.applies is True
    assert "the best student retains 96.0% (95 %: 95.0% to 98.0%), asked for 97.0%" in gap.text
    assert gap.text.endswith("the interval includes the limit, so more rows or seeds decide")
    assert rules(ALL, LIMITS)[1].applies is False
    assert rules([TEACHER], LIMITS)[1].applies is None


@pytest.mark.parametrize(("days", "applies"), [(2.0, True), (4.0, False), (None, None)])
def test_training_is_repaid_by_the_calls_that_save_its_seconds(days, applies):
    # 3,600 s over 12 ms a call against the teacher's fastest form: 300,000 calls, 3 days at 100,000 a day
    repaid = rules(ALL, Limits(10.0, 50.0, 0.97, 100_000.0, days))[2]
    assert repaid.applies is applies
    assert "saves 12.00 ms of CPU time a call against teacher, onnx int8, so 300,000 calls repay it" in repaid.text
    assert "3 days at 100,000 calls a day" in repaid.text


def test_a_student_that_saves_nothing_is_never_repaid():
    slower = option("student", "onnx int8", 0.98, 40, 25.0, seconds=60.0)
    repaid = rules([SMALL, slower], LIMITS)[2]
    assert (repaid.applies, "saves no CPU time" in repaid.text) == (True, True)
    assert rules([TEACHER, option("student", "onnx int8", 0.98, 40, None, seconds=60.0)], LIMITS)[2].applies is None


@pytest.mark.parametrize(
    ("device", "words"),
    [
        ("cpu", "training student took 1 h 00 min of wall time a process on CPUs; student"),
        (None, "training student took 1 h 00 min of wall time a process, on a device that the run did not record; student"),
        ("NVIDIA H100", "training student took 1 h 00 min of GPU time (NVIDIA H100); student"),
    ],
)
def test_the_cost_of_training_names_the_device_that_was_measured(device, words):
    student = option("student", "onnx int8", 0.975, 40, 8.0, seconds=3600.0, device=device)
    text = rules([TEACHER, SMALL, student], LIMITS)[2].text
    assert text.startswith(words)
    assert ("where a second of the GPU costs as much as one of the CPU" in text) is (device == "NVIDIA H100")


@pytest.mark.parametrize(("days", "applies", "words"), [(30.0, False, "0.14% of the 30 days"), (0.25, True, "16.67% of the 0.25 days")])
def test_data_that_changes_before_a_new_student_has_paid_is_named(days, applies, words):
    rule = rules(ALL, Limits(10.0, 50.0, 0.97, None, days))[3]
    assert (rule.name, rule.applies) == ("the task's data changes often", applies)
    assert rule.text.startswith("training 'student' anew takes 1 h 00 min ")
    assert words in rule.text
    assert rules(ALL, LIMITS)[3].text.endswith("; give --data-changes-days")
    assert rules([TEACHER], LIMITS)[3].text == "not measured: no student has a run with its time; run: stillhouse task train"


def test_a_prototype_has_no_count_of_calls():
    rule = rules(ALL, LIMITS)[4]
    assert (rule.applies, rule.text) == (None, "not measured: count the calls of a day, and give --calls-per-day")
    assert rules(ALL, Limits(10.0, 50.0, 0.97, 1e6, None))[4].text == "1,000,000 calls a day are expected"
