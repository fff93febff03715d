"""Calls that are made on a thread of their own: nobody waits for them, and their order is kept."""

import threading

import pytest

from launcher.reporting import background
from launcher.reporting.background import BackgroundQueue


def test_calls_are_made_in_their_order_and_what_they_raise_is_handed_on():
    done: list[int] = []
    errors: list[Exception] = []
    calls = BackgroundQueue("test", errors.append)
    for number in (1, 2, 0, 3):
        assert calls.call(lambda number=number: done.append(6 // number))
    assert calls.finish(10)
    assert done == [6, 3, 2]
    assert [type(error) for error in errors] == [ZeroDivisionError]


def test_whoever_hands_a_call_over_waits_for_none(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(background, "MOST", 2)
    held, begun, done = threading.Event(), threading.Event(), []
    calls = BackgroundQueue("test", lambda error: None)
    calls.call(lambda: (begun.set(), held.wait()))
    begun.wait()
    assert [calls.call(done.append, number) for number in range(3)] == [True, True, False], "only so many wait"
    assert not calls.finish(0.01)
    held.set()


def test_an_end_that_does_not_come_is_told(monkeypatch: pytest.MonkeyPatch):
    held = threading.Event()
    calls = BackgroundQueue("test", lambda error: None)
    calls.call(held.wait)
    assert not calls.finish(0.05)
    held.set()
    assert calls.finish(10)
