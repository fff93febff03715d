"""The report as tables for the terminal and as Markdown."""

import re

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from launcher.report.page import averages, percent, rows_of
from launcher.report.published import PUBLISHED, PUBLISHED_TASKS
from launcher.report.results import ROLE_TITLES, Results
from launcher.report.retention import Macro, Row, TaskSummary
from launcher.report.verdicts import points, verdicts

TASK_HEADINGS = ("task", "model", "score", "95 % interval", "± seeds", "retained", "above constant", "to teacher")
MACRO_HEADINGS = ("student", "mean score", "teacher's", "retained", "above constant")
NOT_MEANINGFUL = "not meaningful"


def terminal(results: Results, summaries: list[TaskSummary]) -> Group:
    """Tables for a terminal: every model on every task, the averages, and when not to distil."""
    parts: list[Table | Text] = [_table("", TASK_HEADINGS, [_cells(summary, row) for summary, row in rows_of(summaries)], words=2)]
    for title, rows in averages(summaries):
        parts.append(_table(title, MACRO_HEADINGS, [_macro_cells(row) for row in rows], words=1))
    for summary in summaries:
        for one in verdicts(summary, results.margin):
            if one.weight != "fine":
                parts.append(Text(f"{one.task}{', ' * bool(one.student)}{one.student}: {one.text}"))
    return Group(*parts)


def markdown(results: Results, summaries: list[TaskSummary]) -> str:
    """The report as Markdown, without texts of examples."""
    lines = [f"# {_plain(results.title)}", "", "Scores are metrics times 100, means over seeds.", ""]
    for title, averaged in averages(summaries):
        lines += [f"## {_plain(title)}", "", *_markdown_table(MACRO_HEADINGS, [_macro_cells(row) for row in averaged]), ""]
    lines += [_plain(note) for note in results.notes]
    lines += ["", "## Tasks", "", *_markdown_table(TASK_HEADINGS, [_cells(summary, row) for summary, row in rows_of(summaries)]), ""]
    lines += ["| task | metric | examples | constant predictor |", "| --- | --- | --- | --- |"]
    for task in results.tasks:
        lines.append(f"| {_plain(task.title)} | {task.metric_title} | {task.examples:,} | {points(task.constant)} |")
    lines += ["", f"## When not to distil (margin {percent(results.margin)})", ""]
    for summary in summaries:
        for one in verdicts(summary, results.margin):
            lines.append(f"- **{_plain(one.task)}**{', ' * bool(one.student)}{_plain(one.student)} ({one.weight}): {_plain(one.text)}")
    lines += ["", "## Published figures, not measured here", "", "In brackets: the share of BERT-base's score in the same table.", ""]
    published = [
        [row.model, row.split, *(f"{row.scores[t][0]} ({percent(row.retained(t))})" if t in row.scores else "" for t in PUBLISHED_TASKS)]
        for row in PUBLISHED
    ]
    lines += _markdown_table(("model", "scored on", *PUBLISHED_TASKS), published)
    lines += ["", *(f"- {row.model}: {row.source}, {row.url}. Compared with {row.teacher}." for row in PUBLISHED)]
    return "\n".join(lines) + "\n"


def _cells(summary: TaskSummary, row: Row) -> list[str]:
    first = [summary.task.title, row.model, points(row.value), f"{points(row.low)} to {points(row.high)}"]
    spread = "one seed" if row.spread is None else points(row.spread)
    if row.to_teacher is None:
        return [*first, spread, "", "", ""]
    above = NOT_MEANINGFUL if row.above_constant is None else percent(row.above_constant)
    kept = NOT_MEANINGFUL if row.retained is None else percent(row.retained)
    return [*first, spread, kept, above, f"{row.to_teacher.value * 100:+.1f}{' (noise)' * row.to_teacher.within_noise}"]


def _macro_cells(row: Macro) -> list[str]:
    spread = "" if row.spread is None else f" ± {points(row.spread)}"
    above = NOT_MEANINGFUL if row.above_constant is None else percent(row.above_constant)
    without = f" (without {', '.join(row.not_meaningful)})" if row.not_meaningful and row.above_constant is not None else ""
    student = f"{row.model} ({ROLE_TITLES[row.role]})"
    return [student, f"{points(row.value)}{spread}", points(row.teacher), percent(row.retained), above + without]


def _table(title: str, headings: tuple[str, ...], rows: list[list[str]], words: int) -> Table:
    """words: how many columns from the left hold words rather than figures."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), title=Text(title) if title else None, title_justify="left")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="left" if place < words else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    return table


def _markdown_table(headings: tuple[str, ...], rows: list[list[str]]) -> list[str]:
    lines = [f"| {' | '.join(headings)} |", f"| {' | '.join('---' for _ in headings)} |"]
    return lines + [f"| {' | '.join(_plain(cell) for cell in row)} |" for row in rows]


def _plain(text: str) -> str:
    """A text without meaning in Markdown or HTML, on one line."""
    line = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", line)
