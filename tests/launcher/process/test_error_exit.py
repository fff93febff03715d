"""What a door says of what went wrong, and when it shows a traceback instead."""

import argparse
import errno
import os
from pathlib import Path

import pytest

from launcher.errors import LaunchError
from launcher.process.error_exit import guarded


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


@pytest.mark.parametrize(
    ("error", "got"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/elsewhere/x"), "permission denied"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "/elsewhere/x"), "no such file or directory"),
        (FileExistsError(errno.EEXIST, "File exists", b"/elsewhere/x"), "file exists"),
        (OSError(errno.EINVAL, None, "/elsewhere/x"), "oserror"),
    ],
)
def test_an_error_about_a_file_is_one_line_whoever_named_the_file(
    no_rank: None, capsys: pytest.CaptureFixture[str], error: OSError, got: str
):
    assert guarded(failing(error), argparse.Namespace()) == 2
    line = f"stillhouse: /elsewhere/x: expected a file or folder that can be used, got {got}; move it, or name another\n"
    assert capsys.readouterr().err == line


def test_the_traceback_behind_an_error_about_a_file_can_be_asked_for(
    no_rank: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("STILLHOUSE_TRACEBACK", "1")
    assert guarded(failing(PermissionError(errno.EACCES, "Permission denied", "/elsewhere/x")), argparse.Namespace()) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("stillhouse: /elsewhere/x: expected ")


@pytest.mark.parametrize("descriptor", [7, None])
def test_an_error_about_no_file_shows_where_it_happened(no_rank: None, capsys: pytest.CaptureFixture[str], descriptor: int | None):
    assert guarded(failing(PermissionError(errno.EACCES, "Permission denied", descriptor)), argparse.Namespace()) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-1].startswith("PermissionError: ")


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
