"""Means, spreads and the rule for noise, against numbers from tables and by hand."""

import pytest

from launcher.comparison.statistics import Difference, Spread, difference, spread, t_quantile


@pytest.mark.parametrize(
    ("freedom", "probability", "expected"),
    [  # a printed table of Student's t
        (1, 0.975, 12.706),
        (2, 0.975, 4.303),
        (3, 0.975, 3.182),
        (9, 0.975, 2.262),
        (30, 0.975, 2.042),
        (120, 0.975, 1.980),
        (1, 0.95, 6.314),
        (4, 0.995, 4.604),
        (5, 0.5, 0.0),
    ],
)
def test_quantiles_are_those_of_the_printed_table(freedom: int, probability: float, expected: float):
    assert t_quantile(freedom, probability) == pytest.approx(expected, abs=6e-4)


def test_a_spread_is_mean_and_sample_deviation_and_one_value_has_no_deviation():
    assert spread([1.0, 2.0, 6.0]) == Spread(3.0, pytest.approx(7**0.5), 3)
    assert spread([4.0]) == Spread(4.0, None, 1)


def test_differences_are_taken_seed_by_seed_over_the_seeds_that_both_have():
    # differences 0.5, 1.0, 0.5 of seeds 1, 2, 3: mean 2/3, deviation 0.288675, margin 4.3027 x 0.288675 / sqrt(3) = 0.71711
    found = difference({1: 1.0, 2: 2.0, 3: 3.5, 9: 100.0}, {3: 3.0, 2: 1.0, 1: 0.5, 4: -7.0})
    assert found == Difference(pytest.approx(2 / 3), pytest.approx(0.71711, abs=1e-5), 3)
    assert found.within_noise is True


def test_a_shift_that_every_seed_shares_is_no_noise_however_far_seeds_lie_apart():
    found = difference({1: 1.11, 2: 5.10, 3: 9.12}, {1: 1.0, 2: 5.0, 3: 9.0})
    assert found is not None
    assert found.margin == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-3)
    assert found.within_noise is False


def test_two_pairs_that_lie_close_together_by_chance_decide_nothing():
    found = difference({1: 1.006, 2: 1.0057}, {1: 1.0, 2: 1.0})
    assert found is not None
    assert abs(found.mean) > found.margin
    assert found.within_noise is None


def test_one_pair_knows_nothing_of_noise_and_no_pair_is_no_difference():
    assert difference({1: 2.0}, {1: 1.0, 2: 3.0}) == Difference(1.0, None, 1)
    assert Difference(1.0, None, 1).within_noise is None
    assert difference({1: 2.0}, {2: 1.0}) is None
