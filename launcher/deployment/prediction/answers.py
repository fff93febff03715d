"""Logits to the lines that `stillhouse predict` prints: one function for each purpose of a model."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding

from kd.tasks.metrics.spans import best_span
from launcher.deployment.prediction.inputs import Text
from launcher.deployment.prediction.served import Served

DIGITS = 6
Floats = NDArray[np.float64]
Logits = NDArray[np.float32]


@dataclass(frozen=True)
class AnswerSettings:
    """top: words for each mask. no_answer: a question may have none. temperature: logits are divided by it.

    thresholds: of several labels by name; a label is given where its probability reaches its threshold. None: above one half.
    """

    top: int = 5
    no_answer: bool = False
    temperature: float = 1.0
    thresholds: dict[str, float] | None = None


Rows = Sequence[tuple[Encoding, Logits]]
"""The rows of a text, each with its outputs: [1, C], [1, S, C], [1, masks, V], or [2, S] for starts and ends of answers."""


def answer(served: Served, text: Text, rows: Rows, settings: AnswerSettings) -> dict[str, Any]:
    """The line of a text."""
    return _ANSWERS[served.purpose](served, text, rows, settings)


def _classes(served: Served, text: Text, rows: Rows, settings: AnswerSettings) -> dict[str, Any]:
    shares = softmax(rows[0][1][0] / settings.temperature)
    best = int(shares.argmax())
    return {**_source(text), "label": served.labels[best], "score": _rounded(shares[best])}


def _several(served: Served, text: Text, rows: Rows, settings: AnswerSettings) -> dict[str, Any]:
    shares = 1 / (1 + np.exp(-rows[0][1][0].astype(np.float64) / settings.temperature))
    if settings.thresholds is None:
        chosen = [number for number in range(len(shares)) if shares[number] > 0.5]
    else:
        chosen = [number for number, name in enumerate(served.labels) if shares[number] >= settings.thresholds[name]]
    return {**_source(text), "label": [served.labels[n] for n in chosen], "score": [_rounded(shares[n]) for n in chosen]}


def _value(_served: Served, text: Text, rows: Rows, _settings: AnswerSettings) -> dict[str, Any]:
    return {**_source(text), "score": _rounded(rows[0][1][0][0])}


def _tags(served: Served, text: Text, rows: Rows, settings: AnswerSettings) -> dict[str, Any]:
    words = text.split_words()
    labels, scores = ["O"] * len(words), [0.0] * len(words)
    seen: set[int] = set()
    encoding, logits = rows[0]
    for token, word in enumerate(encoding.word_ids):
        if word is not None and word not in seen:
            seen.add(word)
            shares = softmax(logits[0][token] / settings.temperature)
            labels[word], scores[word] = served.labels[int(shares.argmax())], _rounded(shares.max())
    return {"words": words, "label": labels, "score": scores}


def _span(_served: Served, text: Text, rows: Rows, settings: AnswerSettings) -> dict[str, Any]:
    """The best span over all windows. Its score is a share of all tokens of all windows."""
    width = max(len(encoding.ids) for encoding, _ in rows)
    logits, allowed = np.full((2, len(rows), width), -np.inf), np.zeros((len(rows), width), bool)
    for number, (encoding, outputs) in enumerate(rows):
        logits[:, number, : outputs.shape[1]] = outputs
        allowed[number, : len(encoding.ids)] = [sequence == 1 for sequence in encoding.sequence_ids]
    line = {"question": text.text, "label": "", "score": 0.0}
    best = best_span(logits[0], logits[1], allowed, null=settings.no_answer)
    starts, ends = (softmax(one.reshape(-1)).reshape(one.shape) for one in logits)
    if settings.no_answer and not best.answers():
        window = int((logits[0, :, 0] + logits[1, :, 0]).argmin())
        return line | {"score": _rounded(starts[window, 0] * ends[window, 0])}
    if best.window < 0:
        return line
    offsets = rows[best.window][0].offsets
    answered = (text.pair or "")[offsets[best.start][0] : offsets[best.end][1]]
    return line | {"label": answered, "score": _rounded(starts[best.window, best.start] * ends[best.window, best.end])}


def _fill(served: Served, text: Text, rows: Rows, settings: AnswerSettings) -> dict[str, Any]:
    fills = []
    for logits in rows[0][1][0]:
        shares = softmax(logits)
        best = np.argsort(-shares, kind="stable")[: settings.top]
        fills.append([{"token": served.tokenizer.decode([int(one)]).strip(), "score": _rounded(shares[one])} for one in best])
    return {**_source(text), "label": fills[0][0]["token"], "score": fills[0][0]["score"], "fills": fills}


_ANSWERS: dict[str, Callable[[Served, Text, Rows, AnswerSettings], dict[str, Any]]] = {
    "classification": _classes,
    "multi_label": _several,
    "regression": _value,
    "tagging": _tags,
    "question_answering": _span,
    "masked_lm": _fill,
}


def _source(text: Text) -> dict[str, Any]:
    return {"text": text.text} if text.pair is None else {"text": text.text, "pair": text.pair}


def softmax(logits: NDArray[Any]) -> Floats:
    """Probabilities over the last axis, in fp64."""
    powers = np.exp(logits.astype(np.float64) - logits.max(-1, keepdims=True))
    shares: Floats = powers / powers.sum(-1, keepdims=True)
    return shares


def _rounded(value: Any) -> float:
    return round(float(value), DIGITS)
