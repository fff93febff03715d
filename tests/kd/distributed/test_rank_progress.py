"""Where a rank says it is."""

import time

import pytest

from kd.distributed.rank_progress import Whereabouts


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_place_is_update_step_phase_and_the_seconds_since(clock: list[float]):
    here = Whereabouts()
    clock[0] = 2.0
    assert str(here.now) == "starting"
    here.begin(7, "data")
    here.enter("forward")
    clock[0] = 5.0
    assert (here.now.update, here.now.step, here.now.phase, here.now.seconds) == (7, 1, "forward", 3.0)
    assert str(here.now) == "forward of update 7"
    here.touch()
    assert (here.now.step, here.now.seconds) == (1, 0.0)


def test_seconds_are_summed_by_phase_until_they_are_taken(clock: list[float]):
    here = Whereabouts()
    for update in (1, 2):
        here.begin(update, "data")
        clock[0] += 1.0
        here.enter("forward")
        clock[0] += 10.0
        here.enter("backward")
        clock[0] += 100.0
    assert here.take_busy() == {"data": 2.0, "teacher": 0.0, "forward": 20.0}
    assert here.take_busy() == {"data": 0.0, "teacher": 0.0, "forward": 0.0}
