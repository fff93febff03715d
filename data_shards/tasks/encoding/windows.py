"""Questions and contexts as overlapping windows of tokens, with the answer's tokens in each window."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Encoding, Tokenizer

from data_shards.errors import DataError
from data_shards.tasks.encoding.encoded import EncodeCounts
from data_shards.tasks.examples import Answer, Examples
from data_shards.tasks.settings import TaskDataSettings
from stillhouse.errors import one_line

CHUNK_ROWS = 512


def encode_questions(examples: Examples, tokenizer: Any, settings: TaskDataSettings, counts: EncodeCounts) -> dict[str, Any]:
    """The fields of EncodedTask that depend on the rows: every context in windows that share window_overlap tokens.

    A question is cut at max_question tokens and loses its leading white space. Each window has the whole question, and a part of the
    context of as many tokens as fit into max_length. A window's label is the first answer, if the window holds it whole.
    """
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    backend.no_padding()
    questions = _cut_questions(examples, backend, settings.max_question, counts)
    backend.enable_truncation(settings.max_length, stride=settings.window_overlap, strategy="only_second")
    contexts = examples.pairs or []
    ids, types, characters, lengths, numbers, labels = [], [], [], [], [], []
    for start in range(0, len(examples), CHUNK_ROWS):
        pairs = list(zip(questions[start : start + CHUNK_ROWS], contexts[start : start + CHUNK_ROWS], strict=True))
        try:
            encodings = backend.encode_batch(pairs)
        except Exception as error:  # the tokenizers library raises plain Exception
            raise DataError(
                f"{examples.places[start]}: expected questions that fit, got {one_line(error)[:200]}; raise max_length"
            ) from None
        for number, encoding in enumerate(encodings, start):
            windows = [encoding, *encoding.overflowing]
            counts.windows += len(windows)
            counts.split_contexts += len(windows) > 1
            answer = _first_answer(examples, number)
            found = False
            for window in windows:
                spans = _characters(window)
                lengths.append(len(window))
                ids.append(np.asarray(window.ids, np.int32))
                types.append(np.asarray(window.type_ids, np.uint8))
                characters.append(spans)
                numbers.append(number)
                tokens = answer_tokens(spans, answer) if answer else None
                if tokens and answer and not found:
                    found = True
                    exact = spans[tokens[0], 0] == answer.start and spans[tokens[1], 1] == answer.start + len(answer.text)
                    counts.inexact_answers += not exact
                labels.append(tokens or (_cls(window, tokenizer),) * 2)
            counts.unseen_answers += bool(answer) and not found
    return {
        "ids": np.concatenate(ids),
        "token_types": np.concatenate(types),
        "offsets": np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        "examples": np.asarray(numbers, np.int32),
        "labels": None if examples.labels is None else np.asarray(labels, np.int32).reshape(-1, 2),
        "characters": np.concatenate(characters),
    }


def answer_tokens(spans: NDArray[np.int32], answer: Answer) -> tuple[int, int] | None:
    """(first, last) token of an answer in a window, the smallest span that covers it; None if the window does not hold it whole.

    spans: int32 [S, 2], begin and end of each token in the context, -1 for tokens outside of it.
    """
    inside = np.flatnonzero(spans[:, 0] >= 0)
    begin, end = answer.start, answer.start + len(answer.text)
    if not len(inside) or spans[inside[0], 0] > begin or spans[inside[-1], 1] < end:
        return None
    first = int(inside[np.searchsorted(spans[inside, 0], begin, side="right") - 1])
    last = int(inside[np.searchsorted(spans[inside, 1], end, side="left")])
    return (first, last) if first <= last else None


def _characters(window: Encoding) -> NDArray[np.int32]:
    """Begin and end in the context of each token of a window, -1 for tokens of the question and special tokens. int32 [S, 2]."""
    spans = np.asarray(window.offsets, np.int32).reshape(-1, 2)
    context = np.fromiter((sequence == 1 for sequence in window.sequence_ids), np.bool_, len(window))
    return np.where(context[:, None], spans, np.int32(-1))


def _first_answer(examples: Examples, number: int) -> Answer | None:
    answers = examples.labels[number] if examples.labels is not None else ()
    return answers[0] if answers else None


def _cls(window: Encoding, tokenizer: Any) -> int:
    """The position of [CLS], or 0."""
    return window.ids.index(tokenizer.cls_token_id) if tokenizer.cls_token_id in window.ids else 0


def _cut_questions(examples: Examples, backend: Tokenizer, most: int, counts: EncodeCounts) -> list[str]:
    """The questions without leading white space, and of at most this many tokens."""
    backend.no_truncation()
    questions = [text.lstrip() for text in examples.texts]
    for start in range(0, len(questions), CHUNK_ROWS):
        encodings = backend.encode_batch(questions[start : start + CHUNK_ROWS], add_special_tokens=False)
        for number, encoding in enumerate(encodings, start):
            if len(encoding) > most:
                questions[number] = questions[number][: encoding.offsets[most - 1][1]]
                counts.cut_questions += 1
    return questions
