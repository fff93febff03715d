"""Intervals against explicit resampling and normal theory, tests of differences against scipy, retention by hand."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sklearn

from kd.errors import KdError
from kd.tasks.metrics import statistics
from kd.tasks.metrics.classification import weighted_accuracy, weighted_f1, weighted_matthews
from kd.tasks.metrics.resampling import mean_of


def predictions(examples: int, right: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 2, examples)
    return np.where(generator.random(examples) < right, labels, 1 - labels), labels


def test_an_interval_is_the_percentiles_of_scikit_learns_values_on_the_same_resamples():
    predicted, labels = predictions(100, 0.8)
    generator = np.random.default_rng(11)
    rows = [generator.integers(0, 100, 100) for _ in range(200)]
    expected = [sklearn.matthews_corrcoef(labels[row], predicted[row]) for row in rows]
    interval = statistics.bootstrap(weighted_matthews(predicted, labels), 100, resamples=200, seed=11)
    assert (interval.low, interval.high) == pytest.approx(tuple(np.percentile(expected, [2.5, 97.5])), rel=1e-12)
    assert interval.standard_error == pytest.approx(np.std(expected, ddof=1), rel=1e-12)
    assert interval.value == pytest.approx(sklearn.matthews_corrcoef(labels, predicted), rel=1e-12)


def test_the_standard_error_of_a_mean_is_that_of_theory():
    predicted, labels = predictions(872, 0.9)
    interval = statistics.bootstrap(weighted_accuracy(predicted, labels), 872, resamples=4000)
    assert interval.standard_error == pytest.approx((interval.value * (1 - interval.value) / 872) ** 0.5, rel=0.05)  # 4,000 draws: 1.1 %
    assert interval.low < interval.value < interval.high


def test_an_interval_holds_the_truth_as_often_as_it_says():
    """300 data sets of 150 rows: 95 % of the intervals hold the true accuracy, within three standard errors of that share (3.8 %)."""
    held = 0
    for seed in range(300):
        predicted, labels = predictions(150, 0.8, seed)
        interval = statistics.bootstrap(weighted_accuracy(predicted, labels), 150, resamples=300, seed=seed)
        held += interval.low <= 0.8 <= interval.high
    assert 0.95 - 0.038 <= held / 300 <= 0.95 + 0.038


def test_seeds_decide_and_chunks_do_not(monkeypatch: pytest.MonkeyPatch):
    metric = weighted_f1(*predictions(50, 0.7))
    interval = statistics.bootstrap(metric, 50, seed=3)
    assert statistics.bootstrap(metric, 50, seed=3) == interval
    assert statistics.bootstrap(metric, 50, seed=4) != interval
    monkeypatch.setattr(statistics, "CHUNK_NUMBERS", 170)
    assert statistics.bootstrap(metric, 50, seed=3) == interval


def test_pairing_cancels_what_both_models_find_hard():
    generator = np.random.default_rng(5)
    hard = generator.random(400) < 0.3
    ours, theirs = ~hard, ~hard & (generator.random(400) < 0.96)
    difference = statistics.paired_bootstrap(mean_of(ours), mean_of(theirs), 400)
    apart = statistics.bootstrap(mean_of(ours), 400).standard_error * 2**0.5
    assert difference.value == pytest.approx(ours.mean() - theirs.mean())
    assert difference.standard_error == pytest.approx(np.std(ours.astype(float) - theirs, ddof=1) / 400**0.5, rel=0.1)
    assert difference.standard_error < apart / 2
    assert not difference.within_noise
    assert difference.p_value < 0.01


def test_the_same_model_twice_is_noise():
    metric = mean_of(np.arange(20) % 3 == 0)
    difference = statistics.paired_bootstrap(metric, metric, 20)
    assert (difference.value, difference.p_value, difference.within_noise) == (0, 1, True)


def test_the_interval_of_a_ratio_is_that_of_explicit_resampling():
    generator = np.random.default_rng(8)
    ours, theirs = generator.random(60) < 0.7, generator.random(60) < 0.9
    rows = np.random.default_rng(2).integers(0, 60, (101, 60))
    expected = np.sort([(ours[row].mean() - 0.5) / (theirs[row].mean() - 0.5) for row in rows])
    low, high = statistics.paired_ratio(mean_of(ours), mean_of(theirs), 60, constant=0.5, resamples=101, confidence=0.9, seed=2)
    assert (low, high) == pytest.approx((expected[5], expected[95]))


def test_a_teacher_that_may_be_constant_has_no_upper_bound():
    weak = mean_of(np.arange(20) < 10)
    assert statistics.paired_ratio(weak, weak, 20, constant=0.5)[1] == np.inf


def test_runs_are_averaged_on_each_resample():
    runs = statistics.mean_of_runs([mean_of(np.array([1.0, 0.0])), mean_of(np.array([0.0, 0.0]))])
    np.testing.assert_allclose(runs(np.array([[1.0, 1.0], [2.0, 0.0]])), [0.25, 0.5])


def test_the_smallest_p_value_counts_the_observed_data_as_a_resample():
    difference = statistics.paired_bootstrap(mean_of(np.ones(30)), mean_of(np.zeros(30)), 30)
    assert difference.p_value == 2 / 1001


def test_mcnemar_is_the_binomial_test_of_the_examples_that_one_model_alone_gets_right():
    ours = np.array([1] * 10 + [0] * 2 + [1] * 30, dtype=bool)
    theirs = np.array([0] * 10 + [1] * 2 + [1] * 30, dtype=bool)
    by_hand = 2 * sum(stats.binom.pmf(k, 12, 0.5) for k in range(3))
    assert statistics.mcnemar(ours, theirs) == pytest.approx(by_hand)
    assert statistics.mcnemar(ours, ours) == 1
    with pytest.raises(KdError, match="the same examples twice, got 3 and 2"):
        statistics.mcnemar([1, 0, 1], [1, 0])


def test_retention_by_hand():
    assert statistics.retained(0.81, 0.9) == pytest.approx(0.9)
    assert statistics.retained(0.1, 0.0) is None
    assert statistics.retained_above_constant(0.81, 0.9, constant=0.5, standard_error=0.01) == pytest.approx(0.31 / 0.4)
    assert statistics.retained_above_constant(0.45, 0.9, constant=0.5, standard_error=0.01) == pytest.approx(-0.05 / 0.4)


def test_retention_above_constant_means_nothing_where_the_teacher_is_within_two_standard_errors():
    assert statistics.retained_above_constant(0.53, 0.55, constant=0.5, standard_error=0.026) is None
    assert statistics.retained_above_constant(0.53, 0.55, constant=0.5, standard_error=0.024) == pytest.approx(0.6)


def test_the_macro_average_weighs_tasks_equally():
    values = {"sst2": 0.9, "cola": 0.5, "rte": 0.6}
    assert statistics.macro(values) == pytest.approx(2 / 3)
    assert statistics.macro(values, without=frozenset({"rte"})) == pytest.approx(0.7)
    assert statistics.macro(values, without=frozenset(values)) is None
