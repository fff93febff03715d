"""`stillhouse predict MODEL [FILE|-]`: a JSON line with label and score for each text, in the order of the input.

Rows of like length share a batch, so that little is computed for padding and 8-bit activations get a scale that suits them.
"""

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from tokenizers import Encoding

from kd.tasks.metrics.spans import best_span
from launcher.deployment.prediction.inputs import Text, format_of, read_texts
from launcher.deployment.prediction.served import Served, serve
from launcher.errors import LaunchError
from launcher.process.standard_streams import say

WINDOW_BATCHES = 16
"""Batches that are read before their rows are sorted by length."""
DIGITS = 6


def run(arguments: argparse.Namespace) -> int:
    """Print a line for each text as soon as its window is computed."""
    served = serve(arguments.model)
    if served.purpose == "hidden":
        raise LaunchError(
            f"{arguments.model}: expected a model with a head, got an encoder alone; fine-tune it first: stillhouse task train"
        )
    pair = arguments.pair_column
    column = arguments.column
    if served.purpose == "question_answering":
        column, pair = ("question" if column == "text" else column), pair or "context"
    form = format_of(arguments.file, arguments.input_format)
    if served.purpose == "question_answering" and form == "lines":
        raise LaunchError(f"{arguments.file}: expected csv or jsonl with question and context, got lines; set --input-format jsonl")
    with _bar() as advance:
        for lines in predictions(served, read_texts(arguments.file, form, column, pair), arguments.batch, arguments.top):
            say("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))
            advance(len(lines))
    return 0


def predictions(served: Served, texts: Iterable[Text], batch: int, top: int = 5) -> Iterator[list[dict[str, Any]]]:
    """The predictions of a window of texts at a time, in the order of the input."""
    waiting = iter(texts)
    while window := list(islice(waiting, batch * WINDOW_BATCHES)):
        encodings = [_encode(served, text) for text in window]
        order = sorted(range(len(window)), key=lambda row: len(encodings[row].ids))
        made: list[dict[str, Any]] = [{}] * len(window)
        for start in range(0, len(order), batch):
            rows = order[start : start + batch]
            for row, logits in zip(rows, served.logits([encodings[row] for row in rows]), strict=True):
                made[row] = _ANSWERS[served.purpose](served, window[row], encodings[row], logits, top)
        yield made


def _encode(served: Served, text: Text) -> Encoding:
    if served.purpose == "tagging":
        words = text.words if text.words is not None else text.text.split()
        return served.tokenizer.encode(words, is_pretokenized=True)
    encoding: Encoding = served.tokenizer.encode(text.text) if text.pair is None else served.tokenizer.encode(text.text, text.pair)
    if served.purpose == "masked_lm" and (served.mask_id is None or served.mask_id not in encoding.ids):
        cut = f" in the first {served.max_tokens} tokens" if len(encoding.ids) >= served.max_tokens else ""
        raise LaunchError(
            f"{text.origin}: expected {served.mask_token or 'a mask token'} in the text{cut}, got none; put it where a word is missing"
        )
    return encoding


def _classes(served: Served, text: Text, _encoding: Encoding, logits: NDArray[np.float32], _top: int) -> dict[str, Any]:
    shares = _softmax(logits[0])
    best = int(shares.argmax())
    return {**_source(text), "label": served.labels[best], "score": _rounded(shares[best])}


def _several(served: Served, text: Text, _encoding: Encoding, logits: NDArray[np.float32], _top: int) -> dict[str, Any]:
    shares = 1 / (1 + np.exp(-logits[0].astype(np.float64)))
    chosen = [number for number in range(len(shares)) if shares[number] > 0.5]
    return {**_source(text), "label": [served.labels[n] for n in chosen], "score": [_rounded(shares[n]) for n in chosen]}


def _value(_served: Served, text: Text, _encoding: Encoding, logits: NDArray[np.float32], _top: int) -> dict[str, Any]:
    return {**_source(text), "score": _rounded(logits[0][0])}


def _tags(served: Served, text: Text, encoding: Encoding, logits: NDArray[np.float32], _top: int) -> dict[str, Any]:
    words = text.words if text.words is not None else text.text.split()
    labels, scores = ["O"] * len(words), [0.0] * len(words)
    seen: set[int] = set()
    for token, word in enumerate(encoding.word_ids):
        if word is not None and word not in seen:
            seen.add(word)
            shares = _softmax(logits[0][token])
            labels[word], scores[word] = served.labels[int(shares.argmax())], _rounded(shares.max())
    return {"words": words, "label": labels, "score": scores}


def _span(_served: Served, text: Text, encoding: Encoding, logits: NDArray[np.float32], _top: int) -> dict[str, Any]:
    allowed = np.array([sequence == 1 for sequence in encoding.sequence_ids])
    answer, score = "", 0.0
    if allowed.any():
        best = best_span(logits[:1], logits[1:], allowed[None])
        if best.window >= 0:
            answer = (text.pair or "")[encoding.offsets[best.start][0] : encoding.offsets[best.end][1]]
            score = _rounded(_softmax(logits[0])[best.start] * _softmax(logits[1])[best.end])
    return {"question": text.text, "label": answer, "score": score}


def _fill(served: Served, text: Text, encoding: Encoding, logits: NDArray[np.float32], top: int) -> dict[str, Any]:
    fills = []
    for token, number in enumerate(encoding.ids):
        if number == served.mask_id:
            shares = _softmax(logits[0][token])
            best = np.argsort(-shares, kind="stable")[:top]
            fills.append([{"token": served.tokenizer.decode([int(one)]).strip(), "score": _rounded(shares[one])} for one in best])
    return {**_source(text), "label": fills[0][0]["token"], "score": fills[0][0]["score"], "fills": fills}


_ANSWERS: dict[str, Callable[[Served, Text, Encoding, NDArray[np.float32], int], dict[str, Any]]] = {
    "classification": _classes,
    "multi_label": _several,
    "regression": _value,
    "tagging": _tags,
    "question_answering": _span,
    "masked_lm": _fill,
}


def _source(text: Text) -> dict[str, Any]:
    return {"text": text.text} if text.pair is None else {"text": text.text, "pair": text.pair}


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    powers = np.exp(logits.astype(np.float64) - logits.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def _rounded(value: Any) -> float:
    return round(float(value), DIGITS)


@contextmanager
def _bar() -> Iterator[Callable[[int], None]]:
    """A count of finished texts on a terminal; nothing where standard output is the terminal too."""
    console = Console(stderr=True)
    columns = (TextColumn("predicted"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal or sys.stdout.isatty()) as bar:
        task = bar.add_task("predicted", total=None)
        yield lambda count: bar.update(task, advance=count)
