"""A run of phases as a user starts it, killed around a border."""

import pytest
import torch
from run_lines import facts, lines, train_lines
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
PHASES = (
    "phases=[{name: head, updates: 4, trains: [head], objective: [{kind: mlm}]}, {name: hints, share: 0.25, objective: [{kind: cosine}], "
    "trains: [layers], optimizer: {learning_rate: 2.0e-3}}, {name: all, optimizer_state: continue}]"
)
SCHEDULE = "objective.0.temperature={schedule: linear, from: 4, to: 2}"
SETTINGS = ("train.updates=10", "checkpoint.every_updates=1", "report.every_updates=3", PHASES, SCHEDULE)


def test_killed_before_at_and_after_a_border_it_ends_bit_identical_and_its_lines_name_the_phases(start, tmp_path):
    undisturbed = start(tmp_path / "undisturbed", *SETTINGS)
    killed = start(tmp_path / "killed", *SETTINGS, "report.every_updates=1")
    for update in (3, 4, 5):
        killed.wait_for_update(update)
        killed.kill()
        killed = start(tmp_path / "killed", *SETTINGS, "report.every_updates=1")
    assert killed.wait() == [0], killed.output
    assert undisturbed.wait() == [0], undisturbed.output
    expected = load_file(tmp_path / "undisturbed" / "student" / "model.safetensors")
    found = load_file(tmp_path / "killed" / "student" / "model.safetensors")
    assert all(torch.equal(weight, expected[name]) for name, weight in found.items())
    every = {line["update"]: line for line in train_lines(tmp_path / "killed")}
    assert [every[update]["phase"] for update in range(1, 11)] == ["head"] * 4 + ["hints"] * 2 + ["all"] * 4
    assert [line["update"] for line in train_lines(tmp_path / "undisturbed")] == [3, 4, 6, 9, 10]  # a border has a line of its own
    assert [every[update].get("temperature/soft_targets") for update in (6, 7, 10)] == [None, 4.0, 2.0]
    assert {name for name in every[5] if name.startswith("loss/")} == {"loss/cosine"}
    said = [line["message"] for line in lines(tmp_path / "killed", "event") if line["event"] == "phase"]
    assert said == [
        "phase 1 of 3, head: updates 1 to 4",
        "phase 2 of 3, hints: updates 5 to 6",
        "phase 3 of 3, all: updates 7 to 10",
    ]
    assert "update 4/10  head  loss" in undisturbed.output
    assert facts(tmp_path / "undisturbed")[-1]["phase"] == "all"
