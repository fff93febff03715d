"""Where a rank says it is."""

import time

import pytest

from kd.distributed.rank_progress import RankProgress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def test_a_point_is_update_step_phase_and_the_seconds_since(clock: list[float]):
    progress = RankProgress()
    clock[0] = 2.0
    assert str(progress.now) == "starting"
    progress.begin(7, "data")
    progress.enter("forward")
    clock[0] = 5.0
    assert (progress.now.update, progress.now.step, progress.now.phase, progress.now.seconds) == (7, 1, "forward", 3.0)
    assert str(progress.now) == "forward of update 7"
    progress.touch()
    assert (progress.now.step, progress.now.seconds) == (1, 0.0)


def test_seconds_are_summed_by_phase_until_they_are_taken(clock: list[float]):
    progress = RankProgress()
    for update in (1, 2):
        progress.begin(update, "data")
        clock[0] += 1.0
        progress.enter("forward")
        clock[0] += 10.0
        progress.enter("backward")
        clock[0] += 100.0
    assert progress.take_busy() == {"data": 2.0, "teacher": 0.0, "forward": 20.0, "head": 0.0}
    assert progress.take_busy() == {"data": 0.0, "teacher": 0.0, "forward": 0.0, "head": 0.0}
