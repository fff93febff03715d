"""The best answer span of an example from start and end logits of its windows."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kd.errors import KdError


@dataclass(frozen=True)
class Span:
    """The best span: token positions `start` .. `end` of window `window`, both included.

    score: the sum of its two logits.
    null_score: the lowest sum of start and end logit at position 0 over all windows; None if the decoder was called without `null`.
    A window without an allowed span never wins. If no window has one, `window` is -1 and the score is -inf.
    """

    window: int
    start: int
    end: int
    score: float
    null_score: float | None = None

    @property
    def null_margin(self) -> float:
        """The score of no answer minus that of the span. Infinite where no span is allowed."""
        return -np.inf if self.null_score is None else self.null_score - self.score

    def answers(self, null_threshold: float = 0.0) -> bool:
        """True if the span is the answer, rather than no answer. An example whose margin equals the threshold is answered."""
        return self.window >= 0 and self.null_margin <= null_threshold


def best_span(start_logits: ArrayLike, end_logits: ArrayLike, allowed: ArrayLike, max_tokens: int = 30, null: bool = False) -> Span:
    """The span with the highest start logit plus end logit, over all windows of one example.

    start_logits, end_logits: [W, S].
    allowed: bool [W, S], tokens of the context. They exclude the question, special tokens and padding.
    max_tokens: the longest answer.
    null: position 0 of each window scores "no answer" (SQuAD 2.0).
    Ties go to the first window, then the shortest span, then the first position.
    """
    starts, ends = np.asarray(start_logits, dtype=np.float64), np.asarray(end_logits, dtype=np.float64)
    inside = np.asarray(allowed, dtype=bool)
    if starts.ndim != 2 or not starts.size or starts.shape != ends.shape or starts.shape != inside.shape:
        shapes = ", ".join(str(list(values.shape)) for values in (starts, ends, inside))
        raise KdError(
            f"answer spans: expected start logits, end logits and allowed positions of one shape [windows, S], "
            f"got {shapes}; pass every window"
        )
    if max_tokens < 1:
        raise KdError(f"answer spans: expected a longest answer of at least 1 token, got {max_tokens}; raise it")
    if np.isnan(starts).any() or np.isnan(ends).any():
        raise KdError("answer spans: expected logits that are numbers, got NaN; look at the model")
    null_score = float((starts[:, 0] + ends[:, 0]).min()) if null else None
    starts, ends = np.where(inside, starts, -np.inf), np.where(inside, ends, -np.inf)
    best = Span(-1, -1, -1, -np.inf, null_score)
    width = starts.shape[1]
    for window in range(len(starts)):
        for length in range(min(max_tokens, width)):
            sums = starts[window, : width - length] + ends[window, length:]
            begin = int(sums.argmax())
            if sums[begin] > best.score:
                best = Span(window, begin, begin + length, float(sums[begin]), null_score)
    return best
