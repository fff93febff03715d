"""The best span against a search over all spans."""

import numpy as np
import pytest

from kd.errors import KdError
from kd.tasks.metrics.spans import best_span


@pytest.mark.parametrize("max_tokens", [1, 3, 30])
def test_the_span_is_the_best_of_all_windows(max_tokens: int):
    generator = np.random.default_rng(max_tokens)
    for _ in range(20):
        starts, ends = generator.normal(size=(2, 3, 12))
        allowed = generator.random((3, 12)) < 0.7
        allowed[:, 0] = False
        every = {
            (window, begin, end): starts[window, begin] + ends[window, end]
            for window in range(3)
            for begin in range(12)
            for end in range(begin, min(begin + max_tokens, 12))
            if allowed[window, begin] and allowed[window, end]
        }
        span = best_span(starts, ends, allowed, max_tokens, null=True)
        assert (span.window, span.start, span.end) == max(every, key=every.__getitem__)
        assert span.score == pytest.approx(max(every.values()))
        assert span.null_score == pytest.approx(min(starts[window, 0] + ends[window, 0] for window in range(3)))


def test_no_answer_wins_above_the_threshold_only():
    starts, ends = np.array([[4.0, 1.0, 0.0]]), np.array([[2.0, 0.0, 3.0]])
    span = best_span(starts, ends, [[False, True, True]], null=True)
    assert (span.start, span.end, span.score, span.null_margin) == (1, 2, 4.0, 2.0)
    assert not span.answers()
    assert span.answers(null_threshold=2.0)
    assert best_span(starts, ends, [[False, True, True]]).answers(), "SQuAD 1.1 always answers"


def test_a_window_of_padding_never_wins():
    starts = ends = np.array([[0.0, 1.0], [0.0, 9.0]])
    assert best_span(starts, ends, [[False, True], [False, False]]).window == 0
    nothing = best_span(starts, ends, np.zeros((2, 2), dtype=bool), null=True)
    assert nothing.window == -1
    assert not nothing.answers(null_threshold=1e9)


@pytest.mark.parametrize("shape", [(0, 4), (4,)])
def test_shapes_that_are_not_windows_are_refused(shape: tuple[int, ...]):
    with pytest.raises(KdError, match="of one shape"):
        best_span(np.zeros(shape), np.zeros(shape), np.zeros(shape, dtype=bool))
    with pytest.raises(KdError, match="NaN"):
        best_span([[np.nan]], [[0.0]], [[True]])
