"""When not to distil: each sentence appears where its figures call for it, and only there."""

from launcher.report.results import Task
from launcher.report.retention import Difference, Row, TaskSummary
from launcher.report.verdicts import Verdict, verdicts

RUNS = [{"seed": 0, "value": 0.9, "low": 0.8, "high": 1.0, "standard_error": 0.01}]
TASK = Task.model_validate(
    {
        "name": "t",
        "title": "T",
        "kind": "classification",
        "metric": "accuracy",
        "constant": 0.5,
        "examples": 872,
        "models": [{"name": "big", "role": "teacher", "runs": RUNS}],
    }
)


def row(value: float, error: float = 0.004, plain: float | None = None, seeds: int = 3, noise: float = 0.004) -> Row:
    return Row(
        task="t",
        model="small",
        role="distilled",
        value=value,
        low=0.0,
        high=1.0,
        spread=0.0,
        seeds=seeds,
        standard_error=error,
        retained=value / 0.9,
        above_constant=(value - 0.5) / 0.4,
        to_teacher=Difference("big", value - 0.9, noise, True, seeds),
        to_fine_tuned=None if plain is None else Difference("plain", value - plain, noise, True, seeds),
    )


def found(student: Row, meaningful: bool = True) -> list[Verdict]:
    teacher = Row("t", "big", "teacher", 0.9, 0.88, 0.92, 0.0, 3, 0.01)
    return verdicts(TaskSummary(TASK, [teacher, student], meaningful), margin=0.03)


def test_a_student_that_loses_more_than_the_margin():
    (one,) = found(row(0.86))
    assert one.weight == "stop"
    assert one.text == "Loses 4.4 % of the teacher, more than the margin of 3.0 %. Use a larger student or keep the teacher."
    (one,) = found(row(0.86, noise=0.05))
    assert one.weight == "caution"
    assert one.text.endswith("The difference is within noise: score more examples or seeds before you decide.")


def test_fine_tuning_that_is_as_good():
    (one,) = found(row(0.885, plain=0.88))
    assert one.weight == "stop"
    assert (
        "Fine-tuning alone is as good, as far as these runs can tell: +0.5 points against plain is within the noise of 0.8 points"
        in one.text
    )
    (one,) = found(row(0.885, plain=0.9))
    assert "Fine-tuning alone is better: -1.5 points against plain. Do not distil" in one.text


def test_a_difference_that_is_noise():
    (one,) = found(row(0.895))
    assert one.weight == "caution"
    assert (
        one.text == "The difference to the teacher (-0.5 points) is noise on 872 examples. A loss of up to 1.3 points cannot be ruled out."
    )


def test_retention_that_flatters():
    (one,) = found(row(0.88, plain=0.85))
    assert one.weight == "caution"
    assert one.text.startswith("Retention flatters here: 97.8 % of the teacher, but only 95.0 % of what")


def test_a_good_student_is_said_to_be_good():
    (one,) = found(row(0.889, plain=0.85))
    assert (one.student, one.weight) == ("small", "fine")
    assert one.text == "It retains 98.8 % (97.2 % above constant), and is +3.9 points better than plain."


def test_a_student_no_better_than_constant_and_a_teacher_that_says_nothing():
    about_task, about_student = found(row(0.505), meaningful=False)
    assert about_task.student == ""
    assert about_task.text.startswith("Not meaningful: the teacher (90.0) is within two standard errors of a constant prediction (50.0).")
    assert about_student.text.startswith("No better than a constant prediction: 50.5 against 50.0.")


def test_few_seeds_are_said():
    (one,) = found(row(0.889, plain=0.85, seeds=1))
    assert (one.weight, one.text) == ("caution", "1 seed: the spread over seeds is not known well. Run at least three.")
