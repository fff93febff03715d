"""Retention, its noise and its averages by hand, on results whose figures are known."""

import math
from pathlib import Path

import pytest
from report_results import write_results

from launcher.report.results import Results
from launcher.report.retention import macros, read_all, summarise


def run(value: float, seed: int = 0, error: float = 0.01) -> dict:
    return {"seed": seed, "value": value, "low": value - 2 * error, "high": value + 2 * error, "standard_error": error}


def task(name: str, constant: float, teacher: list[dict], student: list[dict], noisy: bool = False) -> dict:
    models = [{"name": "big", "role": "teacher", "runs": teacher}, {"name": "small", "role": "distilled", "runs": student}]
    kind = {"kind": "classification", "metric": "accuracy", "examples": 100, "small_and_noisy": noisy}
    return {"name": name, "title": name.upper(), "constant": constant, "models": models, **kind}


def summaries(*tasks: dict, folder: Path = Path()):
    results = Results.model_validate({"title": "R", "tasks": list(tasks)})
    return summarise(results, read_all(results, folder))


def test_one_task_by_hand():
    (summary,) = summaries(task("a", 0.5, [run(0.9), run(0.92, 1)], [run(0.8), run(0.84, 1)]))
    teacher, student = summary.rows
    assert (teacher.value, student.value) == pytest.approx((0.91, 0.82))
    assert student.spread == pytest.approx(0.02 * 2**0.5)
    assert student.retained == pytest.approx(0.82 / 0.91)
    assert student.above_constant == pytest.approx(0.32 / 0.41)
    assert student.retained_interval is None, "without predictions there is nothing to resample"
    difference = student.to_teacher
    assert difference is not None
    seeds = math.hypot(0.02 * 2**0.5, 0.01 * 2**0.5) / 2**0.5
    assert difference.value == pytest.approx(-0.09)
    assert difference.standard_error == pytest.approx(math.hypot(0.01, 0.01, seeds))
    assert not difference.paired
    assert not difference.within_noise


def test_a_teacher_within_two_standard_errors_of_constant_gives_no_retention_above_it():
    (summary,) = summaries(task("rte", 0.527, [run(0.57, error=0.03)], [run(0.55, error=0.03)]))
    assert not summary.meaningful
    assert summary.rows[1].above_constant is None
    assert summary.rows[1].retained == pytest.approx(0.55 / 0.57)


def test_averages_weigh_tasks_equally_with_and_without_the_noisy_ones():
    found = summaries(
        task("a", 0.5, [run(0.9), run(0.9, 1)], [run(0.8), run(0.82, 1)]),
        task("b", 0.0, [run(0.5), run(0.5, 1)], [run(0.4), run(0.44, 1)]),
        task("rte", 0.527, [run(0.53, error=0.03), run(0.53, 1)], [run(0.53), run(0.53, 1)], noisy=True),
    )
    (every,), (quiet,) = macros(found, without_noisy=False), macros(found, without_noisy=True)
    assert every.value == pytest.approx((0.81 + 0.42 + 0.53) / 3)
    assert every.retained == pytest.approx((0.81 + 0.42 + 0.53) / (0.9 + 0.5 + 0.53))
    assert every.above_constant == pytest.approx((0.31 + 0.42) / (0.4 + 0.5)), "only tasks whose teacher beats a constant count"
    assert every.not_meaningful == ["RTE"]
    assert every.spread == pytest.approx((0.02 + 0.04) / 3 / 2**0.5)
    assert (quiet.tasks, quiet.not_meaningful) == (["A", "B"], [])
    assert quiet.retained == pytest.approx(1.23 / 1.4)


def test_predictions_pair_the_examples_and_give_retention_an_interval(tmp_path: Path):
    results = write_results(tmp_path, ("SST-2", "SQuAD", "CoNLL-2003", "STS-B"))
    for summary in summarise(results, read_all(results, tmp_path)):
        student = summary.rows[1]
        assert student.to_teacher is not None
        assert student.to_teacher.paired
        assert student.to_teacher.standard_error < math.hypot(student.standard_error, summary.rows[0].standard_error)
        assert student.retained_interval is not None
        assert student.retained_interval[0] < student.retained < student.retained_interval[1]
        assert student.to_fine_tuned is not None
        assert student.to_fine_tuned.other == "student 3 x 384, fine-tuned"
