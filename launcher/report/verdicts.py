"""When not to distil: sentences that follow from the figures of a task, in plain words."""

from dataclasses import dataclass
from typing import Literal

from launcher.report.retention import Row, TaskSummary
from launcher.text import share

Weight = Literal["stop", "caution", "fine"]
"""stop: do not distil, or do not trust the figure. caution: know this. fine: nothing speaks against this student."""

WEIGHTS: tuple[Weight, ...] = ("stop", "caution", "fine")


@dataclass(frozen=True)
class Verdict:
    """The sentences about a student on a task, and the heaviest of their weights; student is empty for sentences about the task."""

    task: str
    student: str
    weight: Weight
    text: str


def verdicts(summary: TaskSummary, margin: float) -> list[Verdict]:
    """One verdict on the task where it cannot tell anything, then one per student that has sentences."""
    title, teacher = summary.task.title, summary.rows[0]
    found: list[Verdict] = []
    if not summary.meaningful:
        text = (
            f"Not meaningful: the teacher ({points(teacher.value)}) is within two standard errors of a constant prediction "
            f"({points(summary.task.constant)}). Train a better teacher or use more examples before you read the students' figures."
        )
        found.append(Verdict(title, "", "stop", text))
    for row in summary.rows[1:]:
        sentences = _student(summary, row, margin)
        if sentences:
            heaviest = min((weight for weight, _ in sentences), key=WEIGHTS.index)
            found.append(Verdict(title, row.model, heaviest, " ".join(text for _, text in sentences)))
    return found


def _student(summary: TaskSummary, row: Row, margin: float) -> list[tuple[Weight, str]]:
    """Sentences about one student."""
    found: list[tuple[Weight, str]] = []
    constant = summary.task.constant
    if row.value - constant <= 2 * row.standard_error:
        found.append(("stop", f"No better than a constant prediction: {points(row.value)} against {points(constant)}."))
    if row.role != "fine_tuned":
        found += _loss(summary, row, margin)
        found += _without_teacher(row)
    if row.seeds < 3 and row.role != "fine_tuned":
        found.append(("caution", f"{row.seeds} seed{'s' * (row.seeds > 1)}: the spread over seeds is not known well. Run at least three."))
    if row.role != "fine_tuned" and not found:
        gain = row.to_fine_tuned
        more = f", and is {gain.value * 100:+.1f} points better than {gain.other}" if gain is not None else ""
        found.append(("fine", f"It retains {share(row.retained)} ({share(row.above_constant)} above constant){more}."))
    return found


def _loss(summary: TaskSummary, row: Row, margin: float) -> list[tuple[Weight, str]]:
    """A verdict: the student's loss against the margin, and whether it is noise."""
    difference = row.to_teacher
    assert difference is not None
    lost = None if row.retained is None else 1 - row.retained
    of_gap = None if row.above_constant is None else 1 - row.above_constant
    noise = "" if not difference.within_noise else " The difference is within noise: score more examples or seeds before you decide."
    if lost is not None and lost > margin:
        text = (
            f"Loses {share(lost)} of the teacher, more than the margin of {share(margin)}. Use a larger student or keep the teacher.{noise}"
        )
        return [("caution" if difference.within_noise else "stop", text)]
    if of_gap is not None and of_gap > margin and not difference.within_noise:
        text = (
            f"Retention flatters here: {share(row.retained)} of the teacher, but only {share(row.above_constant)} of what the teacher has "
            f"learned beyond a constant prediction."
        )
        return [("caution", text)]
    if difference.within_noise and summary.meaningful:
        worst = (difference.value - 2 * difference.standard_error) * 100
        text = (
            f"The difference to the teacher ({difference.value * 100:+.1f} points) is noise on {summary.task.examples:,} examples. "
            f"A loss of up to {max(-worst, 0.0):.1f} points cannot be ruled out."
        )
        return [("caution", text)]
    return []


def _without_teacher(row: Row) -> list[tuple[Weight, str]]:
    """A verdict: the same student fine-tuned without a teacher, compared with this one."""
    difference = row.to_fine_tuned
    if difference is None:
        return []
    against = f"{difference.value * 100:+.1f} points against {difference.other}"
    if difference.within_noise:
        noise = f"{against} is within the noise of {2 * difference.standard_error * 100:.1f} points"
        return [("stop", f"Fine-tuning alone is as good, as far as these runs can tell: {noise}. Skip the teacher, or run more seeds.")]
    if difference.value < 0:
        return [("stop", f"Fine-tuning alone is better: {against}. Do not distil this student on this task.")]
    return []


def points(value: float) -> str:
    """A metric between 0 and 1 as it is usually printed: times 100."""
    return f"{value * 100:.1f}"
