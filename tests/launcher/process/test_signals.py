"""A signal is a wish to stop, and every way to end has a code of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from launcher.errors import LaunchError, OutOfMemory, RankLost
from launcher.process.signals import CAUGHT, Exit, StopFlag

ROOT = Path(__file__).resolve().parents[3]
WAITING = """
import signal, sys, time
from launcher.errors import LaunchError, OutOfMemory, RankLost
from launcher.process.signals import CAUGHT, StopFlag
for number in CAUGHT:  # the tests may run under nohup, or in the background of a script: both leave signals ignored
    signal.signal(number, signal.default_int_handler)
flag = StopFlag.install()
print("ready", flush=True)
for line in sys.stdin:
    print(flag.requested, flush=True)
"""


@pytest.fixture
def handlers() -> Iterator[None]:
    """The signals of a process that a shell has started in the foreground; the handlers of this process are put back after the test."""
    before = {number: signal.getsignal(number) for number in CAUGHT}
    wakeup = signal.set_wakeup_fd(-1)  # a run of another test in this process may still answer signals: a second SIGINT would end it
    for number in CAUGHT:
        signal.signal(number, signal.default_int_handler)
    yield
    signal.set_wakeup_fd(wakeup)
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def waiting() -> Iterator[subprocess.Popen[str]]:
    """A process that has installed the flag and answers each line with what was requested."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process
        process.kill()


def asked(process: subprocess.Popen[str]) -> str:
    """What the process says was requested."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


def test_the_exit_codes_are_different_and_known_to_the_batch_scripts():
    codes = {"DONE": 0, "FAILED": 1, "BAD_INPUT": 2, "NOT_FINITE": 3, "OUT_OF_MEMORY": 4, "SAVED_AFTER_SIGNAL": 75, "RANK_LOST": 76}
    assert {code.name: int(code) for code in Exit} == codes
    assert (LaunchError.exit_code, OutOfMemory.exit_code, RankLost.exit_code) == (Exit.BAD_INPUT, Exit.OUT_OF_MEMORY, Exit.RANK_LOST)
    script = (ROOT / "slurm" / "distil_pretrain.sh").read_text(encoding="utf-8")
    assert "75" in script


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP, signal.SIGXCPU])
def test_the_first_signal_is_remembered_by_name_and_stops_nothing(number: signal.Signals):
    flag = StopFlag.install()
    assert flag.requested is None
    os.kill(os.getpid(), number)
    assert flag.requested == number.name


@pytest.mark.usefixtures("handlers")
def test_the_first_signal_is_the_reason_whatever_follows():
    flag = StopFlag.install()
    for number in (signal.SIGUSR2, signal.SIGTERM, signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), number)
    assert flag.requested == "SIGUSR2"


@pytest.mark.usefixtures("handlers")
def test_under_nohup_a_terminal_that_goes_away_has_no_effect():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    flag = StopFlag.install()
    os.kill(os.getpid(), signal.SIGHUP)
    assert flag.requested is None


def test_a_second_ctrl_c_leaves_at_once(waiting: subprocess.Popen[str]):
    waiting.send_signal(signal.SIGINT)
    assert asked(waiting) == "SIGINT"
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(timeout=10) == 128 + signal.SIGINT
    assert waiting.stderr is not None
    assert waiting.stderr.read() == ""


def test_a_launcher_that_repeats_sigterm_does_not_cut_the_saving_short(waiting: subprocess.Popen[str]):
    waiting.send_signal(signal.SIGTERM)
    assert asked(waiting) == "SIGTERM"
    waiting.send_signal(signal.SIGTERM)
    assert asked(waiting) == "SIGTERM"
    assert waiting.poll() is None


def test_two_ctrl_c_leave_at_once_whatever_came_before(waiting: subprocess.Popen[str]):
    waiting.send_signal(signal.SIGTERM)
    assert asked(waiting) == "SIGTERM"
    waiting.send_signal(signal.SIGINT)
    assert asked(waiting) == "SIGTERM"
    waiting.send_signal(signal.SIGINT)
    assert waiting.wait(timeout=10) == 130


def test_a_rank_whose_deepspeed_command_has_ended_stops(tmp_path: Path):
    (tmp_path / "rank.py").write_text(WAITING)
    (tmp_path / "deepspeed").write_text('#!/bin/sh\nsh -c \'"$@"; :\' deepspeed.launcher.launch "$@" <&3 &\nwait\n')
    (tmp_path / "deepspeed").chmod(0o700)
    command = ["sh", "-c", 'exec 3<&0; exec "$@"', "_", str(tmp_path / "deepspeed"), sys.executable, str(tmp_path / "rank.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert asked(process) == "None"
        process.kill()
        process.wait()
        assert asked(process) == "orphaned"


ANSWERING = """
import signal, sys, time
from pathlib import Path
from launcher.process.signals import CAUGHT, StopFlag
for number in CAUGHT:
    signal.signal(number, signal.default_int_handler)
flag = StopFlag.install()
flag.answer()
if sys.argv[1] != "None":
    flag.done, flag.saved, flag.log = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
print("ready", flush=True)
time.sleep(60)
"""


def test_after_the_last_update_a_signal_changes_nothing_and_the_answer_says_so():
    flag = StopFlag()
    flag.done, flag.updates, flag.saved = 12, 12, 12
    answer = "SIGTERM: the last update is done, the run writes its student and ends; a second Ctrl-C ends it without"
    assert flag.acknowledgement(signal.SIGTERM) == answer


@pytest.mark.parametrize(
    ("done", "first", "second"),
    [
        (
            "7",
            "SIGINT: update 8 is finished and saved, then the run ends; a second Ctrl-C ends it now and loses 3 updates",
            "second Ctrl-C: the run ends without saving; 3 updates after update 4 lost; start again to continue from there",
        ),
        (
            "5",
            "SIGINT: update 6 is finished and saved, then the run ends; a second Ctrl-C ends it now and loses 1 update",
            "second Ctrl-C: the run ends without saving; 1 update after update 4 lost; start again to continue from there",
        ),
        (
            "None",
            "SIGINT: the run ends after its first update, which is saved; a second Ctrl-C ends it now, and nothing is lost",
            "second Ctrl-C: the run ends before its first update; nothing is lost",
        ),
    ],
)
def test_ctrl_c_is_answered_within_a_second_and_the_second_one_says_what_is_lost(tmp_path: Path, done: str, first: str, second: str):
    command = [sys.executable, "-c", ANSWERING, done, "4", str(tmp_path / "log.txt")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == "ready\n"
        for said in (first, second):
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            assert process.stderr.readline() == f"stillhouse: {said}\n"
            assert time.monotonic() - began < 1
        assert process.wait(10) == 130
        assert process.stderr.read() == ""
    if done != "None":
        assert [line.partition("  ")[2] for line in (tmp_path / "log.txt").read_text().splitlines()] == [first, second]
