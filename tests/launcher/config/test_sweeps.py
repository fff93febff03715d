"""The packaged sweep: each of its runs is a valid configuration, on W&B and as a Slurm list."""

import itertools
import os
import subprocess
from pathlib import Path

import pytest
import yaml
from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args

from launcher.commands.parser import parser
from launcher.config.load import load_run
from launcher.config.yaml_file import PACKAGED
from launcher.run_folder.folder import RunFolder

SWEEP = yaml.safe_load((PACKAGED / "sweeps" / "distilbert.yaml").read_text(encoding="utf-8"))
LIST = (PACKAGED / "sweeps" / "distilbert.txt").read_text(encoding="utf-8")
GRID = [
    dict(zip(SWEEP["parameters"], values, strict=True))
    for values in itertools.product(*(p["values"] for p in SWEEP["parameters"].values()))
]


def test_the_list_for_slurm_has_the_runs_of_the_grid():
    runs = [line for line in LIST.splitlines() if not line.startswith("#")]
    assert runs == [" ".join(f"{key}={value}" for key, value in run.items()) for run in GRID]
    assert len(runs) == 16


def test_every_run_is_a_valid_configuration_and_no_two_are_the_same():
    configs = [load_run("distilbert", [f"{key}={value}" for key, value in run.items()]) for run in GRID]
    assert len({config.model_dump_json() for config in configs}) == len(GRID)
    first = configs[-1]
    assert (first.objective[0].temperature, first.objective[2].weight, first.student.layers) == (4, 1.0, "every_other")
    assert first.optimizer.learning_rate == 1e-4


def test_the_command_that_wandbs_agent_builds_is_a_run_in_a_folder_of_its_own(tmp_path: Path):
    """W&B's own functions fill in the command. A `stillhouse` on the path prints its arguments."""
    (tmp_path / "stillhouse").write_text('#!/bin/sh\nprintf "%s\\n" "$@"\n')
    (tmp_path / "stillhouse").chmod(0o755)
    filled = create_sweep_command_args({"args": {key: {"value": value} for key, value in GRID[0].items()}})
    words = []
    for word in create_sweep_command(list(SWEEP["command"])):
        words += filled["args_no_hyphens"] if word == "${args_no_hyphens}" else [word]
    environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}", "WANDB_RUN_ID": "ab12cd34"}
    told = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stdout.splitlines()
    arguments = parser().parse_args(told)
    config = load_run(arguments.config, arguments.settings)
    assert (config.run.folder, config.report.wandb) == ("runs/sweep/ab12cd34", "online")
    assert config.optimizer.learning_rate == 5e-4


def test_a_run_of_a_sweep_has_the_id_that_the_agent_gave_it_and_other_runs_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WANDB_RUN_ID", "ab12cd34")
    (tmp_path / "alone").mkdir()
    (tmp_path / "swept").mkdir()
    assert RunFolder(tmp_path / "alone").wandb_id != "ab12cd34"
    monkeypatch.setenv("WANDB_SWEEP_ID", "s1")
    assert RunFolder(tmp_path / "swept").wandb_id == "ab12cd34"
    monkeypatch.delenv("WANDB_SWEEP_ID")
    assert RunFolder(tmp_path / "swept").wandb_id == "ab12cd34"  # a continued run keeps it
