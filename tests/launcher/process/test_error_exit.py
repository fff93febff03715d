"""What a door says of what went wrong, and when it shows a traceback instead."""

import argparse
import errno
import os
from pathlib import Path

import pytest

from launcher.errors import LaunchError
from launcher.process.error_exit import guarded

ROOT = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize("kind", ["folder where a file should be", "name that is too long"])
def test_a_path_that_cannot_be_used_is_one_line(no_rank: None, tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str):
    path = tmp_path if kind.startswith("folder") else tmp_path / ("x" * 300)
    assert guarded(lambda _: len(path.read_text()), argparse.Namespace()) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"stillhouse: {path}: expected a file or folder that can be used, got ")
    assert told.count("\n") == 1


def test_a_name_cannot_write_to_the_terminal(no_rank: None, capsys: pytest.CaptureFixture[str]):
    def bad(arguments: argparse.Namespace) -> int:
        raise LaunchError("a\x1b[2Jb: expected é\n  second line")

    assert guarded(bad, argparse.Namespace()) == 2
    assert capsys.readouterr().err == "stillhouse: a?[2Jb: expected é\n  second line\n"


def failing(error: BaseException):
    """An action that ends so."""

    def action(arguments: argparse.Namespace) -> int:
        raise error

    return action


@pytest.mark.parametrize("given", ["settings", "folder", "parent", "file", "environment"])
def test_a_path_that_the_user_gave_is_theirs_wherever_it_was_given(
    no_rank: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], given: str
):
    monkeypatch.setenv("HOME", "/elsewhere/home")
    (tmp_path / "mine.yaml").write_text("run: {folder: /elsewhere/in/file}\n")
    arguments = argparse.Namespace(settings=["run.folder=/elsewhere/set/it"], folder="/elsewhere/a", config=str(tmp_path / "mine.yaml"))
    place = {
        "settings": "/elsewhere/set/it/lock",
        "folder": "/elsewhere/a/b/c",
        "parent": "/elsewhere/set",  # the way there
        "file": "/elsewhere/in/file/x",
        "environment": "/elsewhere/home/.cache",
    }[given]
    assert guarded(failing(PermissionError(errno.EACCES, "Permission denied", place)), arguments) == 2
    told = f"stillhouse: {place}: expected a file or folder that can be used, got permission denied; move it, or name another\n"
    assert capsys.readouterr().err == told


@pytest.mark.parametrize("place", ["/elsewhere/x", str(ROOT / "kd" / "head.py"), 7, None])
def test_a_path_that_nobody_gave_is_a_bug_of_ours_and_no_line_hides_where(
    no_rank: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: object
):
    monkeypatch.setenv("HOME", str(ROOT.parent))
    assert guarded(failing(PermissionError(errno.EACCES, "Permission denied", place)), argparse.Namespace(settings=[])) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):\n")
    assert "in failing" not in told.splitlines()[-1]
    assert told.splitlines()[-1].startswith("PermissionError: ")


def test_a_mistake_of_ours_is_not_hidden_and_the_credentials_that_it_quotes_are(no_rank: None, capsys: pytest.CaptureFixture[str]):
    assert guarded(failing(ZeroDivisionError("http://me:secret@host/?token=secret")), argparse.Namespace()) == 1
    told = capsys.readouterr().err
    assert "ZeroDivisionError: http://***@host/?token=***" in told
    assert "Traceback" in told
    assert "secret" not in told


def test_a_traceback_can_be_asked_for(no_rank: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("STILLHOUSE_TRACEBACK", "1")
    assert guarded(failing(LaunchError("no")), argparse.Namespace()) == 2
    told = capsys.readouterr().err
    assert told.startswith("Traceback (most recent call last):\n")
    assert told.splitlines()[-1] == "stillhouse: no"


def test_memory_that_is_not_there_is_one_line_and_code_4_at_every_door(no_rank: None, capsys: pytest.CaptureFixture[str]):
    assert guarded(failing(MemoryError()), argparse.Namespace()) == 4
    told = capsys.readouterr().err
    assert told == "stillhouse: expected more memory, got none; see the limits of this shell (ulimit -a), and its job's\n"


@pytest.mark.parametrize(
    ("number", "advice"),
    [(errno.ENOSPC, "has room, and start again"), (errno.EMFILE, "(ulimit -a), raise them"), (errno.EFBIG, "(ulimit -a)")],
)
def test_what_a_machine_lacks_is_one_line_and_code_1(no_rank: None, capsys: pytest.CaptureFixture[str], number: int, advice: str):
    assert guarded(failing(OSError(number, os.strerror(number), "/x")), argparse.Namespace()) == 1
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert advice in told
