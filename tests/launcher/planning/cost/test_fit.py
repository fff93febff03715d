"""The largest micro-batch, and the changes that make a run fit."""

from dataclasses import replace

from planned_runs import planned_run

from launcher.planning.cost.fit import fit, largest_micro_batch, needed, usable
from launcher.planning.cost.memory import with_micro_batch
from launcher.planning.devices.devices import DEVICES

V100, H100 = DEVICES["v100"], DEVICES["h100"]


def test_the_largest_micro_batch_fits_and_the_next_one_does_not():
    run = planned_run(global_batch=4096)
    size = largest_micro_batch(run, V100, usable(V100))
    assert size is not None
    assert 4096 % size == 0
    assert needed(with_micro_batch(run, size), V100) <= usable(V100) < needed(with_micro_batch(run, 2 * size), V100)


def test_a_run_that_fits_needs_no_change():
    result = fit(planned_run(), H100)
    assert result.fits
    assert result.changes == ()


def test_a_run_that_does_not_fit_names_the_one_change_that_makes_it_fit():
    run = planned_run(micro_batch=512, global_batch=4096)
    result = fit(run, V100)
    assert not result.fits
    (change,) = result.changes
    key, _, value = change.partition("=")
    assert key == "train.micro_batch"
    assert result.advice == f"set {change}"
    assert needed(with_micro_batch(run, int(value)), V100) <= usable(V100)


def test_several_changes_are_named_where_one_is_not_enough():
    run = planned_run(ranks=8, micro_batch=64, global_batch=512, stage=0)
    alone = [with_micro_batch(run, 1), replace(run, stage=3), replace(run, checkpointing=True)]
    room = min(needed(changed, H100) for changed in alone) - 300_000_000
    changes = fit(run, H100, room).changes
    assert len(changes) > 1
    assert len({change.partition("=")[0] for change in changes}) == len(changes)


def test_a_run_that_cannot_fit_says_so():
    result = fit(planned_run(), V100, 1_000_000)
    assert not result.fits
    assert result.advice.startswith("use more ranks")
