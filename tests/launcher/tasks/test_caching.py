"""The rule that keeps a teacher's outputs: by the number of epochs, and by what the terms read."""

import pytest

from launcher.config.load import load_run
from launcher.tasks.caching import Caching, caching_of

ROWS = 1000
BATCH = ["train.global_batch=64", "train.micro_batch=64"]


def decision(epochs: float, *words: str) -> Caching:
    config = load_run("tasks/sst2", ["teacher.model=x", "student.init=teacher", *BATCH, f"train.epochs={epochs}", *words])
    updates = -(-int(ROWS * epochs) // 64)
    return caching_of(config, 0, config.phases_of(updates), ROWS, 8 * ROWS)  # type: ignore[arg-type]


@pytest.mark.parametrize(("epochs", "cached"), [(0.5, False), (1, False), (1.5, True), (3, True)])
def test_outputs_are_kept_for_more_than_one_epoch(epochs: float, cached: bool):
    found = decision(epochs)
    assert (found.cached, found.if_present) == (cached, not cached)
    if epochs == 1:
        assert "the run is 1 epochs, in which keeping them saves nothing" in found.text  # its last batch is filled up: 1,024 rows


def test_true_keeps_them_for_one_epoch_and_false_never_does():
    assert decision(1, "teacher.cache_outputs=true").cached
    assert not decision(3, "teacher.cache_outputs=false").cached
