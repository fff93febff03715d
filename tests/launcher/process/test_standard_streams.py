"""Streams that others close: nothing that a run does may end with them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TALK = """
import sys, time
from launcher.process.standard_streams import say, prepare_streams
prepare_streams()
with open(sys.argv[1], "w") as kept:
    for number in range(2000):
        say(f"line {number} …")
    say("an error", sys.stderr)
    kept.write("all said")
"""
SHOW = """
import sys
from launcher.reporting.console import Screen
screen = Screen("x")
for number in range(2000):
    screen.say(f"line {number}")
open(sys.argv[1], "w").write("all said")
"""


def run(shell: str, program: str, kept: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The program, with the words of a shell around it; its exit code, whatever a pipe behind it says."""
    command = ["bash", "-c", f"set -o pipefail; {shell}", "_", sys.executable, "-c", program, str(kept)]
    own = os.environ | {"PYTHONPATH": str(ROOT)} | environment
    return subprocess.run(command, env=own, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)


@pytest.mark.parametrize("shell", ['"$@" | head -1', '"$@" 2>&1 | head -1', '"$@" <&- >&- 2>&-', '"$@" >/dev/full'])
def test_a_reader_that_leaves_and_a_stream_that_is_closed_or_full_end_nothing(tmp_path: Path, shell: str):
    kept = tmp_path / "kept"
    done = run(shell, TALK, kept)
    assert done.returncode == 0, done.stderr
    assert kept.read_text() == "all said", "and nothing that was said, in place of the file that got the closed stream's number"
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr


def test_a_screen_outlives_its_reader(tmp_path: Path):
    done = run('"$@" | head -1', SHOW, tmp_path / "kept")
    assert (done.returncode, done.stdout, done.stderr) == (0, "line 0\n", "")
    assert (tmp_path / "kept").read_text() == "all said"


def test_a_letter_that_the_terminal_lacks_is_shown_as_a_code(tmp_path: Path):
    done = run('"$@"', TALK, tmp_path / "kept", PYTHONIOENCODING="ascii")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "line 0 \\u2026"
