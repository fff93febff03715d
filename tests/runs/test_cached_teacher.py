"""A teacher that has worked once, on two ranks, teaches a run that ends as if it had worked along."""

import re

import pytest
import torch
from run_lines import train_lines
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
SETTINGS = ("train.updates=6", "evaluate.every_updates=null", "evaluate.windows=2", "report.every_updates=1")


def test_on_two_ranks_a_cached_teacher_teaches_bit_for_bit_what_it_would_teach_itself(start, tmp_path):
    cached = ("teacher.mode=cached", f"teacher.cache={tmp_path / 'cache'}")
    own = start(tmp_path / "own", *SETTINGS, ranks=2)
    filling = start(tmp_path / "filling", *SETTINGS, *cached, ranks=2, verb="cache")
    assert filling.wait() == [0, 0], filling.output
    assert re.search(r"teacher: 48 windows, 1,5\d\d states \(all positions\), 19\d kB in .*/cache\n", filling.output), filling.output
    run = start(tmp_path / "run", *SETTINGS, *cached, ranks=2)
    assert run.wait() == [0, 0], run.output
    assert own.wait() == [0, 0], own.output
    expected, found = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("own", "run"))
    assert all(torch.equal(weight, expected[name]) for name, weight in found.items())
    losses = [[line["loss"] for line in train_lines(tmp_path / name)] for name in ("own", "run")]
    assert len(losses[0]) == 6
    assert losses[0] == losses[1]
