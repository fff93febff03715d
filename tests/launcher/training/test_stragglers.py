"""Which rank is called slow: arithmetic alone."""

import pytest

from launcher.training.stragglers import straggler


def seconds(*totals: float) -> list[dict[str, float]]:
    """Ranks that spend a tenth on data, the rest half and half."""
    return [{"data": 0.1 * t, "teacher": 0.45 * t, "forward": 0.45 * t} for t in totals]


@pytest.mark.parametrize(
    ("totals", "rank"),
    [
        ((10.0, 10.0, 31.0), 2),
        ((10.0, 29.0), None),  # less than three times
        ((10.0, 30.0), 1),
        ((30.0, 10.0), 0),
        ((0.1, 0.9), None),  # nine times as long, and less than a second of it
        ((0.0, 0.0), None),
        ((5.0,), None),  # alone
    ],
)
def test_a_rank_three_times_as_slow_as_the_others_median_is_a_straggler(totals: tuple[float, ...], rank: int | None):
    found = straggler(seconds(*totals))
    assert (found.rank if found is not None else None) == rank


def test_the_phase_is_the_one_that_takes_longer_than_elsewhere():
    usual = {"data": 2.0, "teacher": 5.0, "forward": 1.0}
    found = straggler([usual, usual | {"data": 30.0}, usual])
    assert found is not None
    assert (found.phase, found.seconds, found.median, found.times) == ("data", 30.0, 2.0, 36 / 8)
    assert found.sentence(["a", "b", "c"]) == (
        "rank 1 on b takes 4 times as long as the others: 30.0 s in data since the last line, they 2.0 s; look at that host"
    )
