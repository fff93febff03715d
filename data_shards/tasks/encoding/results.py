"""From tokens back to words and texts: the tags of each word, and the text of an answer."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from data_shards.tasks.encoding.encoded import EncodedTask
from data_shards.tasks.examples import Examples


def tags_of_words(task: EncodedTask, row: int, tokens: NDArray[np.integer], words: int, default: str = "O") -> list[str]:
    """The tag of each word of a sentence, from the label number that a model gives each token of its row.

    tokens: int [S], S the row's length; only a word's first token counts. words: the sentence's words. A word without a token, or behind
    the cut, gets the default.
    """
    numbers = _row(task, row, task.words)
    tags = [default] * words
    for at in np.flatnonzero(numbers >= 0):
        tags[int(numbers[at])] = task.label_names[int(tokens[at])]
    return tags


def answer_text(task: EncodedTask, examples: Examples, row: int, first: int, last: int) -> str:
    """The context's text from token `first` to token `last` of a window; "" if one is outside of the context, or the order is wrong."""
    spans = _row(task, row, task.characters)
    begin, end = int(spans[first, 0]), int(spans[last, 1])
    contexts: Sequence[str] = examples.pairs or []
    return contexts[int(task.examples[row])][begin:end] if 0 <= begin < end else ""


def context_tokens(task: EncodedTask, row: int) -> NDArray[np.bool_]:
    """Which tokens of a window are of its context, so that an answer may begin or end there. bool [S]."""
    return _row(task, row, task.characters)[:, 0] >= 0


def _row(task: EncodedTask, row: int, values: NDArray[np.int32] | None) -> NDArray[np.int32]:
    assert values is not None, f"{task.kind} has no such tokens"
    return values[task.offsets[row] : task.offsets[row + 1]]
