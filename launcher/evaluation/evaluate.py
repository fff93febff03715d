"""`stillhouse evaluate`: held-out scores of students, teachers and any Hugging Face masked-language model, side by side."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from rich.console import Console

from data_shards.stream.settings import MaskingSettings, StreamSettings
from kd.evaluation.scores import RETAINED, SCORES, Score
from kd.kernels import fp32_products
from kd.models.sizes import model_sizes
from launcher.errors import LaunchError
from launcher.evaluation.scoring import Scorer, with_retention
from launcher.tables import Column, PlainConsole, print_table
from stillhouse.files import write_atomically


def run(arguments: argparse.Namespace) -> int:
    """Score every model, print the table, write the JSON."""
    if arguments.json is not None:
        _check_writable(Path(arguments.json))
    settings = StreamSettings(
        window_tokens=arguments.window_tokens,
        packing=arguments.packing,
        seed=arguments.seed,
        masking=MaskingSettings(rate=arguments.mask_rate),
        cache_folder=arguments.cache_folder,
    )
    fp32_products.choose()  # as a run does
    rows = score(arguments.models, arguments.shards, arguments.teacher, settings, arguments.windows, arguments.batch)
    show(rows, PlainConsole())
    if arguments.json is not None:
        write_atomically(Path(arguments.json), json.dumps(rows, indent=1) + "\n")
    return 0


def score(
    models: list[str], shards: str, teacher: str | None, settings: StreamSettings, windows: int | None = None, batch: int = 32
) -> list[dict[str, Any]]:
    """One row of scores a model, the teacher's first if there is one; fp32, deterministic.

    Raises LaunchError for a model that does not fit the shards, or shards without a held-out part.
    """
    scorer = Scorer(shards, settings, teacher, windows, batch)
    scorer.check_tokenizers(models)
    rows: list[dict[str, Any]] = []
    for name in ([teacher] if teacher is not None and teacher not in models else []) + models:
        encoder = scorer.teacher if name == teacher and scorer.teacher is not None else scorer.load(name, name)
        rows.append({"model": name, "parameters": model_sizes(encoder).parameters, **scorer.scores(encoder).row})
    teacher_row = next((row for row in rows if row["model"] == teacher), None)
    return [with_retention(row, teacher_row) for row in rows]


def show(rows: list[dict[str, Any]], console: Console, names: dict[str, str] | None = None) -> None:
    """The scores as a small table with a legend. Columns without any value are left out."""
    alone, beside = ([score for score in SCORES if score.needs_teacher == needed] for needed in (False, True))

    def of_score(score: Score) -> Column:
        return Column(score.heading, [score.text(row[score.key]) for row in rows], score.meaning)

    rates = [f"{row['tokens_per_second']:,.0f}" if row.get("tokens_per_second") else "" for row in rows]
    columns = [
        *map(of_score, alone),
        Column("retained", [_share(row["retention"]) for row in rows], RETAINED),
        *map(of_score, beside),
        Column("task", [_share(row.get("task")) for row in rows], "accuracy on the task's development set, after training on the task"),
        Column("size", [f"{row['parameters'] / 1e6:.1f}M" for row in rows], "weights, in millions (M)"),
        Column("tokens/s", rates, "of its training"),
    ]
    models = Column("model", [(names or {}).get(row["model"], row["model"]) for row in rows], justify="left")
    print_table(console, models, [column for column in columns if any(column.cells)])


def _check_writable(path: Path) -> None:
    """Scores take a while: a place that cannot hold them is found before."""
    if path.is_dir() or not os.access(path.parent, os.W_OK | os.X_OK) or not path.parent.is_dir():
        raise LaunchError(f"--json: expected a file that can be written, got {path}; choose another")


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"
