"""The report as tables for the terminal and as Markdown."""

import re

from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from launcher.report.ablation import part_values
from launcher.report.costs import cost_rows
from launcher.report.page import averages, percent, rows_of
from launcher.report.pretraining import Score, pretraining_curve
from launcher.report.published import PUBLISHED, PUBLISHED_TASKS
from launcher.report.results import ROLE_TITLES, Results
from launcher.report.retention import Difference, Macro, Row, TaskSummary
from launcher.report.verdicts import points, verdicts

TASK_HEADINGS = ("task", "model", "score", "95 % interval", "± seeds", "retained", "above constant", "to teacher")
MACRO_HEADINGS = ("student", "mean score", "teacher's", "retained", "above constant")
COST_HEADINGS = ("model", "parameters", "on disk", "ms per example", "mean score")
NOT_MEANINGFUL = "not meaningful"


def terminal(results: Results, summaries: list[TaskSummary]) -> Group:
    """Tables for a terminal: every model on every task, the averages, and when not to distil."""
    parts: list[Table | Text] = [_table("", TASK_HEADINGS, [_cells(summary, row) for summary, row in rows_of(summaries)], words=2)]
    for title, rows in averages(summaries):
        parts.append(_table(title, MACRO_HEADINGS, [_macro_cells(row) for row in rows], words=1))
    for title, headings, cells in _further_tables(summaries):
        parts.append(_table(title, headings, cells, words=2))
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
    for title, headings, cells in _further_tables(summaries):
        lines += ["", f"## {title}", "", *_markdown_table(headings, cells)]
    lines += ["", "## Size and latency", "", *_markdown_table(COST_HEADINGS, [list(row.values()) for row in cost_rows(results)])]
    measured = f" This command measures it: `{results.latency_command}`" if results.latency_command else ""
    lines += ["", f"{_plain(results.latency)}{measured}"] if results.latency else []
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


def _further_tables(summaries: list[TaskSummary]) -> list[tuple[str, tuple[str, ...], list[list[str]]]]:
    """(title, headings, rows) of the parts' worth and of the scores by pretraining tokens, where there are any."""
    tables = []
    titles = [summary.task.title for summary in summaries]
    if values := part_values(summaries):
        cells = [
            [
                f"{row.title}{'' if row.tokens is None else f' ({row.tokens:,} tokens)'}",
                "; ".join([f"{row.pair.having} - {row.pair.lacking}", *(f"also differs, {other}" for other in row.pair.also)]),
                *(_difference(one) for one in (row.mean, *(row.tasks.get(title) for title in titles))),
            ]
            for row in values
        ]
        tables.append(("What each part is worth: points, two standard errors", ("part", "students", "mean", *titles), cells))
    if curve := pretraining_curve(summaries):
        scores = [
            [f"{one.tokens:,}", one.model, *(_score(score) for score in (one.mean, *(one.scores.get(title) for title in curve.tasks)))]
            for one in curve.students
        ]
        over = "" if len(curve.common) == len(curve.tasks) else f" (mean over {', '.join(curve.common) or 'no task'})"
        tables.append((f"Score against pretraining tokens{over}", ("tokens", "student", "mean", *curve.tasks), scores))
    return tables


def _difference(one: Difference | None) -> str:
    """A difference in points with its two standard errors."""
    return "" if one is None else f"{one.value * 100:+.1f} ± {2 * one.standard_error * 100:.1f}{' (noise)' * one.within_noise}"


def _score(score: Score | None) -> str:
    return "" if score is None else f"{points(score.value)} ({points(score.low)} to {points(score.high)})"


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
