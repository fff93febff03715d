"""What rank 0 finds wrong is raised in the words of rank 0, whichever of our rooms or the disk found it."""

import pytest

from data_shards.errors import DamagedFile, DataError
from kd.errors import KdError
from launcher.errors import LaunchError, SharedError
from launcher.process.rank_zero import on_rank_zero


@pytest.mark.parametrize("error", [LaunchError("a"), KdError("b"), DataError("c"), DamagedFile("d"), OSError(5, "Input/output error")])
def test_errors_of_every_room_and_of_the_disk_reach_all_ranks(no_rank: None, error: Exception):
    def fails() -> None:
        raise error

    with pytest.raises(SharedError) as caught:
        on_rank_zero(fails)
    assert str(caught.value) == str(error)


def test_a_bug_of_ours_stays_a_traceback(no_rank: None):
    with pytest.raises(ZeroDivisionError):
        on_rank_zero(lambda: 1 // 0)


def test_the_result_is_that_of_rank_zero(no_rank: None):
    assert on_rank_zero(lambda: 7) == 7
