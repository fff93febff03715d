"""Which updates are bad, by hand: a median over few numbers, counts in a row, and the same after an interruption."""

import json

import pytest

from kd.training.settings import TrainSettings
from kd.training.stability import Stability
from kd.training.update_report import UpdateReport


def settings(**own: object) -> TrainSettings:
    return TrainSettings(global_batch=1, micro_batch=1, updates=1, **own)


def report(update: int, loss: float = 1.0, applied: bool = True) -> UpdateReport:
    return UpdateReport(update, loss, {}, 1.0, 0.1, applied, 1, 1, "" if applied else "gradient not finite")


def test_a_spike_is_a_loss_above_the_factor_times_the_median_of_the_good_ones():
    stability = Stability(settings(spike_factor=2.0))
    for update, loss in enumerate([3, 5, 4, 6, 5, 4, 6, 5], start=1):
        assert stability.judge(report(update, float(loss))) is None
    assert stability.judge(report(9, 10.0)) is None, "twice the median of 5 is not above it"
    trouble = stability.judge(report(10, 10.5))
    assert trouble is not None
    assert (trouble.kind, trouble.since, trouble.hopeless) == ("spike", 10, False)
    assert trouble.message == "loss 10.5 is 2.1 times the median of the last 9, 5"
    assert stability.judge(report(11, 10.5)) is not None, "a spike does not become what is usual"
    assert stability.spikes == 2


def test_the_first_losses_are_no_spikes():
    stability = Stability(settings(spike_factor=1.1))
    assert [stability.judge(report(update, 10.0**update)) for update in range(1, 9)] == [None] * 8
    assert stability.judge(report(9, 1e9)) is not None


def test_without_a_factor_no_loss_is_a_spike():
    stability = Stability(settings())
    assert all(stability.judge(report(update, 10.0**update)) is None for update in range(1, 30))


def test_bad_updates_are_counted_in_a_row_and_blame_the_update_before_them():
    stability = Stability(settings(max_bad_updates=3))
    assert stability.judge(report(1)) is None
    assert [stability.judge(report(n, applied=False)).hopeless for n in (2, 3)] == [False, False]
    assert stability.judge(report(4)) is None
    found = [stability.judge(report(n, applied=False)) for n in (5, 6, 7)]
    assert [trouble.hopeless for trouble in found] == [False, False, True]
    assert [trouble.since for trouble in found] == [4, 4, 4]


def test_a_spike_is_hopeless_only_for_a_run_that_may_go_back():
    for roll_backs, hopeless in ((0, False), (1, True)):
        stability = Stability(settings(spike_factor=2.0, roll_backs=roll_backs))
        for update in range(1, 10):
            stability.judge(report(update))
        assert stability.judge(report(10, 3.0)).hopeless is hopeless
        assert stability.may_roll_back is hopeless
        stability.rolled_back()
        assert not stability.may_roll_back


@pytest.mark.parametrize("moment", range(1, 24))
def test_an_interruption_changes_no_judgement(moment: int):
    reports = [report(n, 1.0 + 0.13 * (n * 7 % 5) + 3.0 * (n % 9 == 0), applied=n % 6 != 1) for n in range(1, 25)]
    whole, first = (Stability(settings(spike_factor=2.0, max_bad_updates=2)) for _ in range(2))
    expected = [whole.judge(one) for one in reports]
    assert any(expected)
    found = [first.judge(one) for one in reports[:moment]]
    second = Stability(settings(spike_factor=2.0, max_bad_updates=2))
    second.restore(json.loads(json.dumps(first.as_dict())))
    assert found + [second.judge(one) for one in reports[moment:]] == expected
