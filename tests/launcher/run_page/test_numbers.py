"""Numbers of report lines: each is found, named and put into its part; long curves keep their ends and extremes."""

import math
import random

import pytest
from run_folders import heldout, train

from launcher.run_page.numbers import numbers_of, points, samples, thinned


def test_each_number_of_the_lines_has_a_title_and_a_part():
    found = {one.key: one for one in numbers_of([train(10)], [heldout(10)])}
    assert [one.part for one in found.values()] == sorted(
        (one.part for one in found.values()), key=["learning", "heldout", "speed", "health"].index
    )
    assert found["loss/mlm"].title == "Term mlm, unweighted"
    assert found["heldout_top1"].title == "Held-out top-1"
    assert found["heldout_top1"].form(0.25) == "25.0 %"
    (kl,) = numbers_of([{"kind": "train", "update": 1, "kl": 0.5}], [])
    assert [one.unit for one in (kl, found["heldout_loss"], found["loss"], found["heldout_top1"])] == ["nats", "nats", "", ""]
    (task,) = numbers_of([], [{"kind": "heldout", "update": 1, "heldout_loss": 0.5}])
    assert task.unit == "", "of a regression it is no cross-entropy"
    assert "tokens_total" not in found
    assert "update" not in found


@pytest.mark.parametrize(
    ("key", "part", "group"),
    [
        ("time/teacher", "speed", "share of time by part"),
        ("time_share/teacher", "speed", "time_share"),
        ("restarts", "health", ""),
        ("kl", "teaching", ""),
        ("agreement", "teaching", ""),
        ("kl_band/rare", "teaching", "kl_band"),
        ("cka/3", "teaching", "CKA with the nearest teacher layer"),
        ("flops_utilisation", "speed", ""),
        ("temperature/soft_targets", "learning", "temperature"),
        ("anything", "other", ""),
    ],
)
def test_a_number_that_is_not_known_by_name_has_a_part_too(key: str, part: str, group: str):
    (one,) = numbers_of([{"kind": "train", "update": 1, key: 0.5}], [])
    assert (one.part, one.group) == (part, group)


def test_values_that_are_no_finite_numbers_have_no_point():
    values = [1.0, None, math.nan, math.inf, "2", True, 1e301, 3]
    lines = [{"kind": "train", "update": n, "loss": value} for n, value in enumerate(values)]
    assert points(lines, "loss") == [(0.0, 1.0), (7.0, 3.0)]
    assert points([{"update": 1, "time": 7200.0, "loss": 2}], "loss", "time", 3600.0, 3600.0) == [(1.0, 2.0)]


def test_a_long_curve_keeps_its_ends_its_extremes_and_its_order():
    draw = random.Random(1)
    curve = [(float(n), draw.random()) for n in range(100_000)]
    curve[77_777], curve[33_333] = (77_777.0, 9.0), (33_333.0, -9.0)
    found = thinned(curve, 500)
    assert len(found) <= 1002
    assert found[0] == curve[0]
    assert found[-1] == curve[-1]
    assert {(77_777.0, 9.0), (33_333.0, -9.0)} <= set(found)
    assert [x for x, _ in found] == sorted(x for x, _ in found)
    assert thinned(curve[:1002], 500) == curve[:1002]


def test_samples_have_both_ends():
    curve = [(float(n), 0.0) for n in range(1000)]
    assert [x for x, _ in samples(curve, 4)] == [0, 333, 666, 999]
    assert samples(curve[:3], 4) == curve[:3]
