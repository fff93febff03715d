"""The script's door: what is checked before ranks meet, what is asked of whom, and what the words look like."""

import argparse
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launcher.config.load import dump_config
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError
from launcher.planning.plan import Plan
from launcher.process.error_exit import guarded
from launcher.run import run
from launcher.training import session
from launcher.training.parts import TrainingData

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, no_rank: None) -> list[tuple[RunConfig, bool]]:
    """What would have been trained: the doors in front of it are real."""
    calls: list[tuple[RunConfig, bool]] = []

    def main(made: RunConfig, plan: Plan, data: TrainingData, resume: bool) -> int:
        calls.append((made, resume))
        return 75

    monkeypatch.setattr(session, "main", main)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    return calls


@pytest.fixture
def asked(make_config: Callable[..., RunConfig], tmp_path: Path) -> Callable[..., argparse.Namespace]:
    """asked(dry_run, resume): the arguments of a run on the tiny corpus."""
    path = tmp_path / "tiny.yaml"
    path.write_text(dump_config(make_config()))
    values = {"config": str(path), "settings": ["train.updates=3"], "scale": None, "dry_run": False, "estimate": False, "resume": False}
    return lambda **more: argparse.Namespace(**(values | more))


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        yield listener.getsockname()[1]


def test_a_run_gets_its_configuration_and_gives_its_exit_code(
    started: list[tuple[RunConfig, bool]], asked: Callable[..., argparse.Namespace]
):
    assert run(asked(resume=True)) == 75
    ((made, resume),) = started
    assert (made.train.updates, resume) == (3, True)


def test_a_dry_run_prints_the_configuration_and_the_plan_and_touches_nothing(
    started: list[tuple[RunConfig, bool]], asked: Callable[..., argparse.Namespace], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    assert run(asked(dry_run=True)) == 0
    text = capsys.readouterr().out
    plan, configuration = text.index("3 updates"), text.index("updates: 3\n")
    assert plan < configuration, "the plan is what a user looks for"
    assert not started
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("world", ["1", "2"])
def test_a_port_that_is_taken_is_one_line_before_ranks_meet(
    started: list[tuple[RunConfig, bool]], asked: Callable[..., argparse.Namespace], taken: int, monkeypatch: pytest.MonkeyPatch, world: str
):
    for name, value in {"WORLD_SIZE": world, "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(taken)}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LaunchError, match=f"127.0.0.1:{taken}: expected a free port for the ranks to meet at, got one taken by "):
        run(asked())
    monkeypatch.setenv("TORCHELASTIC_USE_AGENT_STORE", "True")  # torchrun listens there, for the ranks
    assert run(asked()) == 75
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE")
    monkeypatch.setenv("RANK", "1")  # rank 0 listens, not this one
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert run(asked()) == 75


@pytest.mark.parametrize("variable", ["RANK", "WORLD_SIZE", "MASTER_PORT", "LOCAL_RANK"])
def test_nonsense_in_the_environment_is_one_line(
    started: list[tuple[RunConfig, bool]], asked: Callable[..., argparse.Namespace], monkeypatch: pytest.MonkeyPatch, variable: str
):
    monkeypatch.setenv(variable, "two")
    with pytest.raises(LaunchError, match=f"{variable}: expected a whole number in the environment, got 'two'; correct it, or unset it"):
        run(asked())


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK: expected a number below WORLD_SIZE, got 2 and WORLD_SIZE 2; correct them, or unset both"),
        ({"RANK": "0", "WORLD_SIZE": "0"}, "RANK: expected a number below WORLD_SIZE, got 0 and WORLD_SIZE 0; correct them, or unset both"),
        ({"RANK": "", "WORLD_SIZE": "2"}, "RANK: expected a whole number in the environment, got ''; correct it, or unset it"),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "70000"},
            "MASTER_PORT: expected a port from 1 to 65535, got 70000; set it to the same on every rank",
        ),
        ({"RANK": "1", "WORLD_SIZE": "2"}, "MASTER_PORT: expected a port from 1 to 65535, got none; set it to the same on every rank"),
        (
            {"RANK": "1", "WORLD_SIZE": "2", "MASTER_PORT": "29500", "MASTER_ADDR": ""},
            "MASTER_ADDR: expected the address of rank 0's host, got none; set it to the same on every rank",
        ),
    ],
)
def test_a_place_that_cannot_be_is_said_by_every_rank(
    asked: Callable[..., argparse.Namespace],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    said: str,
):
    """Even by one that is neither rank 0 nor the first of its host: none of them can know."""
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert guarded(run, asked()) == 2
    assert capsys.readouterr().err == f"stillhouse: rank {environment['RANK']} on {platform.node()}: {said}\n"


@pytest.mark.parametrize(
    ("rank", "local_rank", "said"),
    [
        ("0", "0", "stillhouse: no\n"),
        ("3", "1", ""),
        ("2", "0", f"stillhouse: rank 2 on {platform.node()}: no\n"),  # something may be missing on that host alone
    ],
)
def test_every_host_says_once_what_is_wrong_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], rank: str, local_rank: str, said: str
):
    def bad(arguments: argparse.Namespace) -> int:
        raise LaunchError("no")

    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("LOCAL_RANK", local_rank)
    assert guarded(bad, argparse.Namespace()) == 2
    assert capsys.readouterr().err == said


@pytest.mark.slow
def test_the_script_runs_from_any_folder(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, ROOT / "launcher" / "run.py", "--help"], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout.startswith("usage: launcher/run.py ")
