"""Writes the report of a folder: table.txt, report.json, report.md, report.html and the results that they are made of."""

import io
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Group

from launcher.errors import LaunchError
from launcher.report.ablation import part_values
from launcher.report.page import averages, page
from launcher.report.pretraining import pretraining_curve
from launcher.report.published import PUBLISHED
from launcher.report.results import Results
from launcher.report.retention import Difference, TaskSummary, read_all, summarise
from launcher.report.tables import markdown, terminal
from launcher.report.verdicts import verdicts
from launcher.tables import PlainConsole
from stillhouse.files import write_atomically

TABLE_WIDTH = 120


def write_report(results: Results, folder: Path) -> Group:
    """Write all forms of the report into `folder`, to which the paths of predictions are relative. Returns the terminal's tables.

    The same results give the same bytes. Nothing is written if predictions are missing or do not fit.
    """
    predictions = read_all(results, folder)
    summaries = summarise(results, predictions)
    tables = terminal(results, summaries)
    text = io.StringIO()
    PlainConsole(file=text, width=TABLE_WIDTH, color_system=None).print(tables)
    forms = {
        "results.json": results.model_dump_json(indent=1) + "\n",
        "report.json": json.dumps(_finite(figures(results, summaries)), indent=1, allow_nan=False) + "\n",
        "report.md": markdown(results, summaries),
        "table.txt": "\n".join(line.rstrip() for line in text.getvalue().splitlines()) + "\n",
        "report.html": page(results, summaries, predictions),
    }
    for name, content in forms.items():
        try:
            write_atomically(folder / name, content.encode("utf-8", "replace"))
        except OSError as error:
            raise LaunchError(f"{folder / name}: expected to write the report, got {error.strerror}; choose another folder") from None
    return tables


def figures(results: Results, summaries: list[TaskSummary]) -> dict[str, Any]:
    """Every figure of the report as plain data."""
    curve = pretraining_curve(summaries)
    return {
        "title": results.title,
        "margin": results.margin,
        "averages": [{"title": title, "students": [asdict(row) for row in rows]} for title, rows in averages(summaries)],
        "tasks": [
            {
                "task": summary.task.name,
                "title": summary.task.title,
                "metric": summary.task.metric,
                "constant": summary.task.constant,
                "examples": summary.task.examples,
                "small_and_noisy": summary.task.small_and_noisy,
                "meaningful": summary.meaningful,
                "models": [
                    {
                        **asdict(row),
                        **{name: getattr(summary.task.model(row.model), name) for name in ("parameters", "bytes", "latency_ms")},
                        "exported": None if (file := summary.task.model(row.model).exported) is None else file.model_dump(),
                    }
                    for row in summary.rows
                ],
                "verdicts": [asdict(one) for one in verdicts(summary, results.margin)],
            }
            for summary in summaries
        ],
        "parts": [
            {
                "part": row.pair.part,
                "student": row.pair.having,
                "without": row.pair.lacking,
                "also": list(row.pair.also),
                "pretraining_tokens": row.tokens,
                "mean": _difference(row.mean),
                "tasks": {title: _difference(one) for title, one in row.tasks.items()},
            }
            for row in part_values(summaries)
        ],
        "latency": {"text": results.latency, "command": results.latency_command},
        "pretraining": None if curve is None else asdict(curve),
        "published": [asdict(row) for row in PUBLISHED],
    }


def _difference(one: Difference) -> dict[str, Any]:
    ends = {"low": one.value - 2 * one.standard_error, "high": one.value + 2 * one.standard_error}
    return {"value": one.value, **ends, "noise": one.within_noise, "paired": one.paired, "seeds": one.seeds}


def _finite(value: Any) -> Any:
    """The same data with null for numbers that are not finite."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
