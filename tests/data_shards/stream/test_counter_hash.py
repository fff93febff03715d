"""Random numbers without a state: known values, and no bias that would show."""

import numpy as np

from data_shards.stream.counter_hash import counter_hash, permutation, unit_interval


def test_the_hash_is_splitmix64():
    # The first outputs of the published generator from states 0 and 1234567 (Vigna's splitmix64.c).
    assert int(counter_hash(0)) == 0xE220A8397B1DCDAF
    assert int(counter_hash(1234567)) == 6457827717110365317


def test_counters_broadcast_and_each_of_them_matters():
    table = counter_hash(1, np.arange(3)[:, None], np.arange(5))
    assert table.shape == (3, 5)
    assert len(np.unique(table)) == 15
    assert table[2, 4] == counter_hash(1, 2, 4)
    assert counter_hash(1, 2) != counter_hash(2, 1)


def test_unit_interval_is_even_and_never_touches_its_ends():
    draws = unit_interval(counter_hash(7, np.arange(100_000)))
    assert draws.min() > 0
    assert draws.max() < 1
    assert abs(draws.mean() - 0.5) < 5 * (1 / 12 / 100_000) ** 0.5
    assert unit_interval(np.array([0, 2**64 - 1], np.uint64)).tolist() == [2.0**-54, 1 - 2.0**-54]


def test_a_permutation_holds_every_number_once_and_depends_on_its_key():
    assert sorted(permutation(1000, 1, 2).tolist()) == list(range(1000))
    assert permutation(1000, 1, 2).tolist() != permutation(1000, 1, 3).tolist()
    assert permutation(0, 1).tolist() == []
