"""Rate and time left, from a clock that the test sets."""

import pytest

from data_shards.build import progress
from data_shards.build.progress import ProgressClock


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_rate_and_time_left_count_from_the_first_fresh_document(clock):
    told = []
    state = ProgressClock(told.append, bytes_total=1000)
    state.durable_tokens = 5000
    clock[0] = 110.0
    state.fresh(bytes_read=400)  # ten seconds to read what is already durable
    clock[0], state.fresh_tokens = 112.0, 600
    state.tell(documents=7, shards=2, bytes_read=500)
    (now,) = told
    assert (now.tokens, now.documents, now.shards, now.seconds) == (5600, 7, 2, 12.0)
    assert now.tokens_per_second == 300.0
    assert now.seconds_left == 10.0, "500 bytes left at 50 bytes a second"


def test_the_listener_is_called_at_most_twice_a_second_and_at_the_end(clock):
    told = []
    state = ProgressClock(told.append, bytes_total=None)
    for tick in range(21):
        clock[0] = 100.0 + tick * 0.1
        state.tell(1, 0, 10)
    assert len(told) in (3, 4)
    assert told[-1].seconds_left is None
    state.tell(1, 0, 10, last=True)
    assert told[-1].seconds_left == 0.0
