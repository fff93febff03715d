"""A run whose layers are matched by data, killed: it goes on with the map that it began with."""

import pytest
import torch
from run_lines import lines, train_lines
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
SETTINGS = (
    "objective=[{kind: mlm}, {kind: hidden_mse, layer_map: cka, weight: 3}]",
    "train.updates=4",
    "checkpoint.every_updates=1",
    "evaluate.every_updates=null",
    "evaluate.windows=2",
    "report.every_updates=1",
)


def test_killed_and_continued_it_keeps_its_map_and_ends_bit_identical(start, tmp_path):
    undisturbed = start(tmp_path / "undisturbed", *SETTINGS)
    killed = start(tmp_path / "killed", *SETTINGS)
    killed.wait_for_update(2)
    killed.kill()
    killed = start(tmp_path / "killed", *SETTINGS)
    assert killed.wait() == [0], killed.output
    assert undisturbed.wait() == [0], undisturbed.output
    expected = load_file(tmp_path / "undisturbed" / "student" / "model.safetensors")
    found = load_file(tmp_path / "killed" / "student" / "model.safetensors")
    assert all(torch.equal(weight, expected[name]) for name, weight in found.items())
    said, again = (
        [line["message"] for line in lines(tmp_path / name, "event") if line["event"] == "layer_map"] for name in ("killed", "undisturbed")
    )
    assert len(said) == 1
    assert said == again
    assert {line["update"] for line in train_lines(tmp_path / "killed")} == set(range(1, 5))
    table = (tmp_path / "killed" / "layer_maps.txt").read_text()
    assert table == (tmp_path / "undisturbed" / "layer_maps.txt").read_text()
    assert "student \\ teacher" in table
    pairs = said[0].removeprefix("cka: student layer ").split(", ")
    written = [f"{{student: {student}, teacher: {teacher}}}" for student, _, teacher in (pair.split() for pair in pairs)]
    assert table.endswith(f"layer_map: [{', '.join(written)}]\n")
