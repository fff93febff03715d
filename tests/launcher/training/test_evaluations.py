"""Held-out scores of a run: what is said where there are none."""

import pytest

from launcher.config.run_config import EvaluateSettings
from launcher.training.evaluations import Evaluations


def test_a_run_without_held_out_data_says_so_and_others_say_nothing():
    (note,) = Evaluations(None, 10, EvaluateSettings(), keep_best=1).notes
    assert note == "no held-out scores: nothing is held out; build the shards with --heldout 0.01 to have some"
    assert Evaluations(lambda *_: pytest.fail("scored"), 10, EvaluateSettings(), keep_best=1).notes == ()
