"""SQuAD's exact match and F1 of answer texts, by the rules of the official script of SQuAD 2.0, and the thresholds of its no-answer scores.

An example has one predicted text ("" is no answer) and the list of its gold answers (an empty list: the question has no answer).
The script of SQuAD 1.1 gives the same numbers, except for gold answers that normalise to nothing, such as "a".
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from kd.errors import KdError
from kd.tasks.metrics.resampling import Floats, Weighted, check_aligned, mean_of

ARTICLES = re.compile(r"\b(a|an|the)\b", re.UNICODE)
PUNCTUATION = str.maketrans("", "", string.punctuation)
Answers = Sequence[Sequence[str]]


def normalised(text: str) -> str:
    """Lower case without ASCII punctuation, without English articles, with single blanks."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact_match(prediction: str, answer: str) -> float:
    """1 where both texts normalise to the same, else 0."""
    return float(normalised(prediction) == normalised(answer))


def token_f1(prediction: str, answer: str) -> float:
    """F1 of the words that both texts share, with repetitions. Where one text is empty: 1 if both are, else 0."""
    ours, theirs = normalised(prediction).split(), normalised(answer).split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def answer_scores(predictions: Sequence[str], labels: Answers) -> Floats:
    """Per example [n, 2]: exact match and F1, each the best over the gold answers."""
    check_aligned("SQuAD scores", predictions, labels)
    rows = np.empty((len(labels), 2))
    for number, (prediction, answers) in enumerate(zip(predictions, labels, strict=True)):
        if isinstance(answers, str):
            raise KdError(
                f"SQuAD scores: expected a list of gold answers in example {number}, got the text {answers[:40]!r}; put it in a list"
            )
        gold = [answer for answer in answers if normalised(answer)] or [""]
        rows[number] = max(exact_match(prediction, answer) for answer in gold), max(token_f1(prediction, answer) for answer in gold)
    return rows


def mean_exact_match(predictions: Sequence[str], labels: Answers) -> float:
    """Mean exact match, 0 .. 1. The official script prints it times 100."""
    return float(answer_scores(predictions, labels)[:, 0].mean())


def mean_f1(predictions: Sequence[str], labels: Answers) -> float:
    """Mean F1, 0 .. 1. The official script prints it times 100."""
    return float(answer_scores(predictions, labels)[:, 1].mean())


def weighted_exact_match(predictions: Sequence[str], labels: Answers) -> Weighted:
    """Exact match of each resample."""
    return mean_of(answer_scores(predictions, labels)[:, 0])


def weighted_f1(predictions: Sequence[str], labels: Answers) -> Weighted:
    """F1 of each resample."""
    return mean_of(answer_scores(predictions, labels)[:, 1])


def best_null_threshold(null_margins: ArrayLike, answered: ArrayLike, unanswered: ArrayLike) -> tuple[float, float]:
    """The no-answer threshold with the highest mean score on these examples, and that score.

    null_margins [n]: `Span.null_margin`. answered [n]: the score of the predicted span. unanswered [n]: the score of "" (1 where the
    question has no answer). An example gets no answer where its margin is above the threshold. Choose it on development data.
    """
    margins, spans, nulls = (np.asarray(values, dtype=np.float64) for values in (null_margins, answered, unanswered))
    check_aligned("no-answer threshold", spans, margins)
    check_aligned("no-answer threshold", nulls, margins)
    order = np.argsort(margins, kind="stable")
    ranked = margins[order]
    gains = np.concatenate([[0.0], np.cumsum((spans - nulls)[order])])  # the first k examples keep their span
    possible = np.concatenate([[True], ranked[:-1] != ranked[1:], [True]])
    best = int(np.argmax(np.where(possible, gains, -np.inf)))
    edges = np.concatenate([[ranked[0] - 2.0], ranked, [ranked[-1] + 2.0]])
    return float((edges[best] + edges[best + 1]) / 2), float((nulls.sum() + gains[best]) / len(margins))
