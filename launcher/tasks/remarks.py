"""Remarks on the scores of a finished student: a constant prediction, and differences that the development set cannot show."""

from collections.abc import Mapping, Sequence
from typing import Any

from launcher.tasks.scores import TaskScores


def constant_remark(scores: TaskScores, model: str, split: str) -> str | None:
    """A sentence if the model gives one prediction for every example of the split."""
    if "constant_prediction" not in scores.details:
        return None
    value = scores.details["constant_prediction"]
    text = (", ".join(value) or "no label") if isinstance(value, list) else f"{value:g}" if isinstance(value, float) else value
    return f"{model} predicts {text or 'no answer'} for every example of {split}"


def remarks_on(scores: TaskScores, key: str, teachers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Remarks on a student's scores on dev. key: the metric that decides. teachers: the rows of their scores."""
    remarks = [remark] if (remark := constant_remark(scores, "the student", "dev")) else []
    low, high = scores.details["intervals"][key]
    half, value = (high - low) / 2, scores.values[key]
    others = {"a constant prediction": float(scores.details["constant"][key])}
    others |= {f"teacher {number}" if len(teachers) > 1 else "the teacher": float(row[key]) for number, row in enumerate(teachers)}
    for name, other in others.items():
        if abs(value - other) < half:
            remarks.append(
                f"dev is too small to tell the student from {name}: {key} differs by {abs(value - other):.3f}, "
                f"and half of the interval over {scores.rows:,} rows is {half:.3f}"
            )
    return remarks
