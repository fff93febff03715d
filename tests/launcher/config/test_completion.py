"""Completion of the command line: the candidates, and a real bash in which the Tab key is pressed."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launcher import cli
from launcher.commands.completion import SHELLS
from launcher.config.completion import SCRIPTS, candidates, settings
from launcher.config.load import load_config

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["tra"], ["train"]),
        ([""], sorted(cli.MODULES)),
        (["shards", ""], ["build", "info", "verify"]),
        (["shards", "build", "--per", ""], ["file", "line", "paragraph"]),
        (["train", "--est"], ["--estimate"]),
        (["train", "--config", "minil"], ["minilm", "minilmv2"]),
        (["train", "--scale", ""], ["demo"]),
        (["train", "--config", "laptop", "train.upd"], ["train.updates="]),
        (["train", "--config", "laptop", "--dry-run", "optimizer.warm"], ["optimizer.warmup="]),
        (["train", "--config", "laptop", "teacher.mod"], ["teacher.mode=", "teacher.model="]),
        (["compare", "la"], ["layers"]),
        (["config", "show", "tinyb"], ["tinybert"]),
        (["completion", ""], ["bash", "fish", "zsh"]),
        (["evaluate", "runs/"], []),
        (["train", "--config", "laptop", ""], []),
        (["train", "--config", "laptop", "data.shards", "=", ""], []),
        (["nonsense", "--"], ["--help", "--version"]),
    ],
)
def test_candidates(words, found):
    assert candidates(words) == found


def test_hidden_options_are_no_candidates():
    assert "--local_rank" not in candidates(["train", "--"])
    assert "--words" not in candidates(["completion", "bash", "--"])


def test_every_setting_that_is_offered_is_a_setting(make_config):
    config = make_config().model_dump()
    for setting in settings():
        section, _, key = setting.removesuffix("=").partition(".")
        assert section in config
        if isinstance(config[section], dict) and "." not in key:
            assert key in config[section] or section == "teacher", setting
    assert load_config("tiny", ["train.updates=3"]).train.updates == 3


def test_each_shell_has_a_script_that_names_the_command():
    assert set(SCRIPTS) == set(SHELLS)
    for shell, script in SCRIPTS.items():
        assert f" completion {shell} --words " in script


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An environment in which `stillhouse` is this project's."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "stillhouse"
    command.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m launcher.cli "$@"\n')
    command.chmod(0o755)
    (tmp_path / "my text.txt").write_text("x")
    return {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "HOME": str(tmp_path), "TERM": "dumb", "PS1": "$ "}


@pytest.fixture
def complete(environment: dict[str, str], tmp_path: Path) -> Callable[..., list[str]]:
    """complete(*words): what bash's own function puts into COMPREPLY."""

    def call(*words: str) -> list[str]:
        line = " ".join(f"'{word}'" for word in ("stillhouse", *words))
        script = f". <(stillhouse completion bash); COMP_WORDS=({line}); COMP_CWORD={len(words)}; _stillhouse 2>/dev/null; "
        script += 'printf "%s\\n" "${COMPREPLY[@]}"'
        done = subprocess.run(["bash", "--norc", "-c", script], env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    return call


@pytest.mark.slow
def test_the_bash_function_completes_verbs_options_values_and_settings(complete):
    assert complete("tra") == ["train"]
    assert complete("train", "--dry") == ["--dry-run"]
    assert "--" not in complete("train", "--")
    assert complete("train", "--config", "minil") == ["minilm", "minilmv2"]
    assert complete("train", "--config", "tiny", "train.upd") == ["train.updates="]


@pytest.mark.slow
def test_the_tab_key_completes_in_a_real_bash(environment, tmp_path):
    terminal, end_of_bash = pty.openpty()
    shell = ["bash", "--norc", "--noprofile", "-i"]
    bash = subprocess.Popen(
        shell, stdin=end_of_bash, stdout=end_of_bash, stderr=end_of_bash, env=environment, cwd=tmp_path, start_new_session=True
    )
    os.close(end_of_bash)
    screen = ""

    def press(keys: str, expected: str) -> None:
        nonlocal screen
        start, end = len(screen), time.monotonic() + 60
        os.write(terminal, keys.encode())
        while expected not in screen[start:]:
            assert time.monotonic() < end, screen
            if select.select([terminal], [], [], 0.1)[0]:
                screen += os.read(terminal, 1 << 16).decode(errors="replace")

    try:
        press("source <(stillhouse completion bash); echo rea''dy\n", "ready\r\n")
        press("stillhouse tra\t", "train ")
        press("--conf\t", "--config ")
        press("minilmv\t", "minilmv2 ")
        press("train.upd\t", "train.updates=")
        press("3 data.shards=my\t", "my\\ text.txt")
    finally:
        bash.kill()
        bash.wait()
        os.close(terminal)
