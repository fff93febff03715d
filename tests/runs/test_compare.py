"""A comparison and a chain as a user starts them, with real runs; what they report is held against the runs' own reports."""

import csv
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from fork_server import ForkServer
from run_lines import lines, train_lines

from launcher.commands.parser import parser
from launcher.comparison import chain, compare
from launcher.process.signals import CAUGHT, Exit
from launcher.run_folder.metrics_file import last_train_line

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
ROOT = Path(__file__).resolve().parents[2]
COMPARISON = """
base: tiny
settings: [report.every_updates=1, student.architecture=same, teacher.mode=zero3]
seeds: [4]
tokens: 1500
seconds: 0.2
variants:
  plain: []
  last layers: [student.layers=last]
"""
CHAIN = """
base: tiny
settings: [report.every_updates=1, checkpoint.every_updates=4, student.architecture=same]
links:
  half: [train.updates=24]
  quarter: [train.updates=3]
"""


@pytest.fixture(autouse=True)
def handlers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """One thread a process, and this process's signal handlers put back."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = {number: signal.getsignal(number) for number in CAUGHT}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def forked_jobs(monkeypatch: pytest.MonkeyPatch, fork_server: ForkServer) -> None:
    """The runs that this process starts are forked. Those of a process of its own (test_a_chain…) are started as users start them."""
    fork_server.fork_jobs(monkeypatch)


@pytest.fixture
def words(school, tmp_path: Path):
    """words(verb, text, *arguments): the command line of a verb on a file with that text, everything in the test's folder."""

    def make(verb: str, text: str, *arguments: str) -> list[str]:
        file = tmp_path / "mine.yaml"
        file.write_text(text, encoding="utf-8")
        own = [f"data.shards={school.shards}", f"teacher.model={school.teacher}"]
        return [verb, str(file), *own, "--folder", str(tmp_path), *arguments]

    return make


def test_a_comparison_at_equal_time_reports_what_its_runs_did_and_does_nothing_twice(words, forked_jobs, tmp_path, capsys):
    arguments = parser().parse_args(words("compare", COMPARISON, "--budget", "time", "--jobs", "2"))
    assert compare.run(arguments) == Exit.DONE
    shown = capsys.readouterr().out
    assert "last layers: " in shown
    assert "nats over one pair of runs: too few to tell from noise" in shown
    root = tmp_path / "mine"
    pace = json.loads((root / "pace.json").read_text())["seconds_per_update"]
    found = json.loads((root / "time.json").read_text())
    assert [(run["variant"], run["seed"]) for run in found["runs"]] == [("plain", 4), ("last layers", 4)]
    for run, folder in zip(found["runs"], ("plain", "last-layers"), strict=True):
        report = json.loads((root / "time" / folder / "seed-4" / "report.json").read_text())
        assert run["updates"] == report["updates"] == max(1, int(0.2 / pace[run["variant"]]))
        # the run scored itself on the same rows under the same masks
        for key in ("loss", "top1", "top5", "tokens"):
            assert run[key] == pytest.approx(report["heldout"][key], rel=1e-5)
        assert 0 < run["learning_seconds"] < run["wall_seconds"]
        assert run["kl"] > 0
        assert len(run["similarity"]) == 2
    last_of_both = found["runs"][1]["similarity"][-1][-1]
    assert last_of_both == found["runs"][1]["similarity_last"]
    assert last_of_both > 0.5, "the student's last layer was the teacher's last layer a few updates ago"
    with (root / "time.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2
    assert (root / "time.png").read_bytes().startswith(b"\x89PNG")
    assert not list(root.rglob("checkpoints"))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("report.json")}
    assert compare.run(arguments) == Exit.DONE
    assert {path: path.stat().st_mtime_ns for path in root.rglob("report.json")} == before
    assert compare.run(parser().parse_args(words("compare", COMPARISON, "--budget", "time", "--dry-run"))) == Exit.DONE
    assert "0 of 2 runs to do" in capsys.readouterr().out


def test_a_chain_that_is_stopped_goes_on_in_its_link_and_is_measured_against_the_first_teacher(
    words, forked_jobs, tmp_path, school, capsys
):
    half, quarter = tmp_path / "mine" / "half", tmp_path / "mine" / "quarter"
    command = [sys.executable, "-m", "launcher.cli", *words("chain", CHAIN)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 240
    while (last_train_line(half) or {"update": 0})["update"] < 2:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert process.returncode == Exit.SAVED_AFTER_SIGNAL
    assert not quarter.exists()

    assert chain.run(parser().parse_args(words("chain", CHAIN))) == Exit.DONE
    assert [line["event"] for line in lines(half, "event")].count("resumed") == 1
    assert [line["update"] for line in train_lines(half)] == list(range(1, 25))
    assert json.loads((quarter / "report.json").read_text())["teacher"] == str((half / "student").resolve())
    rows = json.loads((tmp_path / "mine" / "chain.json").read_text())
    assert [row["name"] for row in rows] == ["teacher", "half", "quarter"]
    assert rows[0]["model"] == str(school.teacher)
    assert rows[0]["retention"] == 1.0
    for row in rows[1:]:
        assert row["retention"] == pytest.approx(row["top1"] / rows[0]["top1"])
    assert rows[1]["loss"] == pytest.approx(json.loads((half / "report.json").read_text())["heldout"]["loss"], rel=1e-5)
    assert "half" in capsys.readouterr().out
