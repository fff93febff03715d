"""The order of training rows: a pure function of lengths, seed and update."""

import numpy as np
import pytest

from data_shards.errors import DataError
from data_shards.tasks.encoding.order import TaskOrder

LENGTHS = np.random.default_rng(0).integers(5, 128, 1003)


@pytest.mark.parametrize(("rows", "batch"), [(1003, 16), (1003, 1), (40, 40), (7, 16), (64, 16), (17, 16)])
def test_each_epoch_has_every_row_once_and_every_batch_is_full(rows, batch):
    order = TaskOrder(LENGTHS[:rows], 3, batch, bucket=4)
    taken = [order.batch(update) for update in range(-(-rows * 3 // batch))]
    assert {len(one) for one in taken} == {batch}
    seen = np.bincount(np.concatenate(taken), minlength=rows)
    epochs, begun = divmod(len(taken) * batch, rows)
    assert epochs >= 3
    assert sorted(seen.tolist()) == [epochs] * (rows - begun) + [epochs + 1] * begun


def test_batches_of_an_epoch_that_are_not_shared_have_no_row_twice():
    order = TaskOrder(LENGTHS, 3, 16, bucket=4)
    whole = [update for update in range(500) if update * 16 // 1003 == (update * 16 + 15) // 1003]
    for epoch in range(3):
        rows = np.concatenate([order.batch(update) for update in whole if update * 16 // 1003 == epoch])
        assert len(set(rows.tolist())) == len(rows)


def test_ranks_and_micro_batches_share_the_same_rows():
    order = TaskOrder(LENGTHS, 1, 24)
    for update in (0, 41, 42, 100):
        expected = sorted(order.batch(update).tolist())
        for world, size in ((1, 24), (2, 4), (4, 6), (3, 1)):
            shares = [order.micro_batch(update, rank, world, size, index) for rank in range(world) for index in range(24 // world // size)]
            assert {len(share) for share in shares} == {size}
            assert sorted(np.concatenate(shares).tolist()) == expected


def test_an_update_does_not_depend_on_those_before_it():
    one, other = TaskOrder(LENGTHS, 5, 16), TaskOrder(LENGTHS, 5, 16)
    forward = [one.batch(update) for update in range(200)]
    for update in (199, 3, 120, 62, 63):
        assert np.array_equal(other.batch(update), forward[update])


def test_epochs_and_seeds_differ():
    order = TaskOrder(LENGTHS[:64], 5, 64)
    assert not np.array_equal(order._epoch(0), order._epoch(1))
    assert not np.array_equal(TaskOrder(LENGTHS, 5, 16).batch(0), TaskOrder(LENGTHS, 6, 16).batch(0))


@pytest.mark.parametrize("epoch", [0, 1, 2])
def test_buckets_make_padding_small_in_every_epoch(epoch):
    updates = range(epoch * 1003 // 16 + 1, (epoch + 1) * 1003 // 16)

    def padding(bucket: int) -> float:
        order = TaskOrder(LENGTHS, 0, 16, bucket)
        widths = [LENGTHS[order.batch(update)].max() * 16 for update in updates]
        return 1 - sum(LENGTHS[order.batch(update)].sum() for update in updates) / sum(widths)

    assert padding(20) < 0.06 < 0.3 < padding(1)


def test_an_epoch_is_not_sorted_by_length():
    order = TaskOrder(LENGTHS, 0, 16, bucket=100)
    means = [LENGTHS[order.batch(update)].mean() for update in range(62)]
    assert abs(np.corrcoef(np.arange(62), means)[0, 1]) < 0.5


def test_rows_of_a_batch_are_sorted_so_that_micro_batches_have_like_lengths():
    order = TaskOrder(LENGTHS, 0, 32, bucket=1)
    for update in range(100):
        lengths = LENGTHS[order.batch(update)]
        assert (np.diff(lengths) >= 0).all()


def test_a_batch_that_ranks_cannot_share_is_refused():
    with pytest.raises(DataError, match="multiple of ranks x micro_batch = 2 x 5, got 16"):
        TaskOrder(LENGTHS, 0, 16).micro_batch(0, 0, 2, 5, 0)


@pytest.mark.parametrize(("rows", "batch", "epochs", "updates"), [(100, 10, 3, 30), (101, 10, 1, 11), (100, 32, 0.5, 2)])
def test_updates_cover_the_epochs(rows, batch, epochs, updates):
    assert TaskOrder(LENGTHS[:rows], 0, batch).updates(epochs) == updates
