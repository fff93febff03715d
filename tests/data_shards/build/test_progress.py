"""Rates and counts, from a clock that the test sets."""

import pytest

from data_shards.build import progress
from data_shards.build.progress import ProgressClock


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_the_rate_counts_from_the_first_fresh_document(clock):
    reports = []
    state = ProgressClock(reports.append, bytes_total=1000)
    state.durable_tokens = 5000
    clock[0] = 110.0
    state.start_fresh()  # after ten seconds of reading what is already durable
    clock[0], state.fresh_tokens = 112.0, 600
    state.start_fresh()
    state.report(documents=7, shards=2, bytes_read=500)
    (report,) = reports
    assert (report.tokens, report.documents, report.shards, report.seconds) == (5600, 7, 2, 12.0)
    assert (report.bytes_read, report.bytes_total) == (500, 1000)
    assert report.tokens_per_second == 300.0


def test_the_listener_is_called_at_most_twice_a_second_and_at_the_end(clock):
    reports = []
    state = ProgressClock(reports.append, bytes_total=None)
    for tick in range(21):
        clock[0] = 100.0 + tick * 0.1
        state.report(1, 0, 10)
    assert len(reports) in (3, 4)
    state.report(1, 0, 10, last=True)
    assert len(reports) in (4, 5)
