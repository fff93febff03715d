"""`stillhouse predict MODEL [FILE|-]`: a JSON line with label and score for each text, in the order of the input.

Rows of like length share a batch, so that little is computed for padding and 8-bit activations get a scale that suits them.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from launcher.deployment.prediction.answers import AnswerSettings, answer
from launcher.deployment.prediction.calibration import read_calibration
from launcher.deployment.prediction.counted import Counted
from launcher.deployment.prediction.encode import TextEncoder, limits_of
from launcher.deployment.prediction.inputs import Text, format_of, number_of_texts, read_texts
from launcher.deployment.prediction.served import Served, serve
from launcher.errors import LaunchError
from launcher.process.standard_streams import say

WINDOW_BATCHES = 16
"""Batches that are read before their rows are sorted by length."""


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each text as soon as its window is computed. Empty lines and texts that were cut are named on stderr at the end."""
    served = serve(arguments.model)
    if served.purpose == "hidden":
        raise LaunchError(
            f"{arguments.model}: expected a model with a head, got an encoder alone; fine-tune it first: stillhouse task train"
        )
    questions = served.purpose == "question_answering"
    column, pair = arguments.column, arguments.pair_column
    if questions:
        column, pair = ("question" if column == "text" else column), pair or "context"
    elif given := [option for option in ("window_overlap", "max_question", "no_answer") if getattr(arguments, option)]:
        option = f"--{given[0].replace('_', '-')}"
        raise LaunchError(f"{option}: expected a model for question answering, got one for {served.purpose}; leave it out")
    form = format_of(arguments.file, arguments.input_format)
    if questions and form == "lines":
        raise LaunchError(f"{arguments.file}: expected csv or jsonl with question and context, got lines; set --input-format jsonl")
    calibration = read_calibration(arguments.model) if arguments.calibrated else None
    settings = AnswerSettings(arguments.top, arguments.no_answer)
    if calibration is not None:
        settings = replace(settings, temperature=calibration.temperature, thresholds=calibration.thresholds)
    encoder = TextEncoder(served, limits_of(served, arguments.max_length, arguments.window_overlap, arguments.max_question))
    empty = Counted()
    texts = read_texts(arguments.file, form, column, pair, empty)
    with _bar(number_of_texts(arguments.file, form)) as advance:
        for lines in predictions(served, texts, arguments.batch, encoder, settings):
            say("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
            advance(len(lines))
    for remark in (empty.remark("line was", "lines were", "empty and left out"), encoder.remark()):
        if remark:
            say(f"stillhouse: {remark}", sys.stderr)
    return 0


def predictions(
    served: Served, texts: Iterable[Text], batch: int, encoder: TextEncoder, settings: AnswerSettings
) -> Iterator[list[dict[str, Any]]]:
    """The predictions of a window of texts at a time, in the order of the input."""
    waiting = iter(texts)
    while window := list(islice(waiting, batch * WINDOW_BATCHES)):
        encodings = [encoder.windows(text) for text in window]
        rows = [(number, place) for number, several in enumerate(encodings) for place in range(len(several))]
        rows.sort(key=lambda row: len(encodings[row[0]][row[1]].ids))
        made: dict[tuple[int, int], Any] = {}
        for indices in served.batches([len(encodings[number][place].ids) for number, place in rows], batch):
            some = rows[indices.start : indices.stop]
            made |= zip(some, served.logits([encodings[number][place] for number, place in some]), strict=True)
        yield [
            answer(served, text, [(one, made[number, place]) for place, one in enumerate(several)], settings)
            for number, (text, several) in enumerate(zip(window, encodings, strict=True))
        ]


@contextmanager
def _bar(total: int | None) -> Iterator[Callable[[int], None]]:
    """A bar of finished texts on stderr, if it is a terminal; nothing where standard output is the terminal too."""
    console = Console(stderr=True)
    columns = (TextColumn("predicted"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal or sys.stdout.isatty()) as bar:
        task = bar.add_task("predicted", total=total)
        yield lambda count: bar.update(task, advance=count)
