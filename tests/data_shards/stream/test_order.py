"""The order of an epoch: every window once, the same for everyone, each lane a contiguous run."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.stream.counter_hash import permutation
from data_shards.stream.order import SHARDS, WINDOWS, Order


@settings(max_examples=60, deadline=None)
@given(shard_windows=st.lists(st.integers(0, 13), min_size=1, max_size=9).filter(sum), lanes=st.integers(1, 11), seed=st.integers(0, 99))
def test_an_epoch_serves_every_window_once(shard_windows, lanes, seed):
    order = Order(shard_windows, lanes, seed)
    total = sum(shard_windows)
    for epoch in (0, 1, 5):
        windows, visits = order.locate(epoch * total + np.arange(total))
        assert sorted(windows.tolist()) == list(range(total))
        assert set(visits.tolist()) == {epoch}


def test_the_order_is_the_one_that_the_architecture_page_describes():
    shard_windows, lanes, seed, epoch = [4, 2, 5], 3, 1, 2
    first = [0, 4, 6]
    entries = [
        first[shard] + within
        for shard in permutation(3, seed, SHARDS, epoch).tolist()
        for within in permutation(shard_windows[shard], seed, WINDOWS, epoch, shard).tolist()
    ]
    lane = [entries[0:4], entries[4:8], entries[8:11]]  # 11 windows in 3 lanes: 4, 4, 3
    expected = [lane[place % 3][place // 3] for place in range(11)]
    assert Order(shard_windows, lanes, seed).locate(2 * 11 + np.arange(11))[0].tolist() == expected


def test_any_cut_of_the_positions_gives_the_same_windows():
    order = Order([7, 7, 3], 4, seed=5)
    whole = order.locate(np.arange(100))[0]
    fresh = Order([7, 7, 3], 4, seed=5)
    scattered = np.array([99, 0, 17, 16, 50])
    assert fresh.locate(scattered)[0].tolist() == whole[scattered].tolist()


def test_epochs_and_seeds_differ():
    orders = [Order([50, 50], 4, seed).locate(epoch * 100 + np.arange(100))[0].tolist() for seed in (1, 2) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4


def test_a_lane_reads_few_shards():
    order = Order([10] * 16, lanes=4, seed=1)
    windows, _ = order.locate(np.arange(160))
    for lane in range(4):
        assert len(np.unique(windows[lane::4] // 10)) == 4
