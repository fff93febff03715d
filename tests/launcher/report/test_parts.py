"""What a part is worth: only students that differ in one part are compared, and what else differs is named."""

from pathlib import Path

import pytest
from report_results import write_results

from launcher.report.ablation import part_values
from launcher.report.parts import pairs
from launcher.report.results import Results
from launcher.report.retention import read_all, summarise


def student(name: str, role: str, value: float = 0.8, **more: object) -> dict:
    run = {"seed": 1, "value": value, "low": value, "high": value, "standard_error": 0.01}
    return {"name": name, "role": role, "parameters": 1000, "runs": [run], **more}


def results(*students: dict, names: tuple[str, ...] = ("a",)) -> Results:
    form = {"kind": "classification", "metric": "accuracy", "constant": 0.5, "examples": 100}
    models = [student("big", "teacher", 0.9), *students]
    return Results.model_validate({"title": "R", "tasks": [{"name": name, "title": name, "models": models, **form} for name in names]})


def found(*students: dict) -> list[tuple[str, str, str]]:
    return [(pair.part, pair.having, pair.lacking) for pair in pairs(results(*students).tasks[0])]


def test_each_part_is_found_and_students_that_differ_in_two_are_not_compared():
    layers, alone = student("layers", "task_distilled", pretraining_tokens=0), student("alone", "fine_tuned", pretraining_tokens=0)
    whole = student("whole", "distilled", pretraining_tokens=9)
    unlabelled = student("more text", "task_distilled", pretraining_tokens=0, transfer_set=True)
    fresh = student("fresh", "task_distilled", random_start=True)
    assert found(layers, alone, whole, unlabelled, fresh) == [
        ("pretraining", "whole", "layers"),
        ("task", "layers", "alone"),
        ("transfer", "more text", "layers"),
        ("start", "layers", "fresh"),
    ]


def test_students_of_another_shape_or_another_pretraining_are_not_compared():
    alone = student("alone", "fine_tuned")
    assert found(student("larger", "task_distilled") | {"parameters": 1100}, alone) == []
    assert found(student("with a pooler", "task_distilled") | {"parameters": 1020}, alone) == [("task", "with a pooler", "alone")]
    long, short = student("long", "distilled", pretraining_tokens=99), student("short", "pretraining_distilled", pretraining_tokens=9)
    assert found(long, short) == []
    of_one, of_other = ({"settings": {"start": name}, "pretraining_tokens": 9} for name in ("run-1", "run-2"))
    assert found(student("one", "distilled", **of_one), student("other", "pretraining_distilled", **of_other)) == []
    assert found(student("one", "distilled", **of_one), student("same", "pretraining_distilled", **of_one)) == [("task", "one", "same")]


def test_pretraining_without_a_teacher_is_compared_at_the_same_number_of_tokens():
    whole = student("whole", "distilled", pretraining_tokens=9)
    assert found(whole, student("plain", "task_distilled", pretraining_tokens=9)) == [("pretraining", "whole", "plain")]
    assert found(whole, student("plain", "task_distilled", pretraining_tokens=8)) == []


def test_other_settings_that_differ_are_named_unless_they_belong_to_the_part():
    one = student("one", "task_distilled", settings={"epochs": "3", "start": "layers of the fine-tuned teacher", "objective": "x"})
    other = student("other", "fine_tuned", settings={"epochs": "5", "start": "layers of the base model"})
    (pair,) = pairs(results(one, other).tasks[0])
    assert pair.also == ("epochs: 3 and 5", "start: layers of the fine-tuned teacher and layers of the base model")


def test_the_mean_over_tasks_has_the_standard_error_of_a_mean():
    both = results(student("with", "task_distilled", 0.85), student("without", "fine_tuned", 0.8), names=("a", "b"))
    (row,) = part_values(summarise(both, read_all(both, Path())))
    assert row.title == "distillation on the task"
    assert [difference.value for difference in row.tasks.values()] == pytest.approx([0.05, 0.05])
    assert row.tasks["a"].standard_error == pytest.approx(0.01 * 2**0.5)
    assert row.mean.standard_error == pytest.approx(0.01)
    assert not row.mean.within_noise


def test_predictions_pair_the_examples(tmp_path: Path):
    measured = write_results(tmp_path, ("SST-2",), pretrained=True)
    rows = part_values(summarise(measured, read_all(measured, tmp_path)))
    assert {row.pair.part for row in rows} == {"pretraining", "task", "transfer", "start"}
    assert all(row.mean.paired for row in rows)
    assert [row.tokens for row in rows][:3] == [368_583, 4_000_000, 4_000_000]
    assert [row.pair.also for row in rows if row.pair.part == "transfer"] == [("epochs: 5 and default",)]
