"""`stillhouse classify` on a small csv, as a user starts it, and its dry run, whose configurations work as they are printed."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fork_server import ForkServer
from task_files import make_task

from launcher.commands.parser import parser
from launcher.errors import LaunchError
from launcher.process import start_ranks
from launcher.process.signals import Exit
from launcher.report.results import read_results
from launcher.retention import classify, retention

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def forked_jobs(monkeypatch: pytest.MonkeyPatch, fork_server: ForkServer) -> None:
    """The runs that this process starts are forked, with one thread each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr(start_ranks, "subprocess", SimpleNamespace(Popen=fork_server.popen))


@pytest.fixture
def words(school, tmp_path: Path) -> list[str]:
    """A command line on a csv of 240 rows."""
    rows = [json.loads(line) for line in (make_task(tmp_path / "made", "classification").folder / "train.jsonl").read_text().splitlines()]
    with (tmp_path / "my reviews.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["stars", "review"])
        table.writerows([row["label"], row["text"]] for row in rows)
    own = ["--teacher", str(school.teacher), "--learning-rate", "3e-3", "--batch", "16", "--max-length", "64", "--epochs", "3"]
    return ["classify", str(tmp_path / "my reviews.csv"), "--text", "review", "--label", "stars", "--out", str(tmp_path / "mine"), *own]


def test_a_csv_becomes_a_student_a_report_and_a_line_that_uses_the_student(words, tmp_path, capsys):
    assert classify.run(parser().parse_args([*words, "--dev-fraction", "0.2"])) == Exit.DONE
    shown = capsys.readouterr().out
    (task,) = read_results(tmp_path / "mine" / "results.json").tasks
    assert task.examples == pytest.approx(48, abs=2)
    assert task.teacher.runs[0].value > 0.8
    assert task.students[0].parameters < task.teacher.parameters
    assert "0.1 of train" in (tmp_path / "mine" / "report.md").read_text(), "the epoch is not chosen on dev"
    line = shown.strip().splitlines()[-1]
    assert line.startswith("python -c 'from transformers import pipeline; ")
    said = subprocess.run(
        ["bash", "-c", line.replace("python", sys.executable, 1).replace("…", "ba de fi go")], capture_output=True, text=True, check=True
    )
    assert "'label': 'good'" in said.stdout
    with pytest.raises(LaunchError, match=r"task.yaml: expected the settings of this command, got others; choose another --out"):
        classify.run(parser().parse_args([*words, "--dev-fraction", "0.3"]))


def test_the_dry_run_prints_configurations_that_work_as_pasted(words, tmp_path, capsys):
    assert classify.run(parser().parse_args([*words, "--dry-run"])) == Exit.DONE
    assert not (tmp_path / "mine").exists()
    path, lines = None, capsys.readouterr().out.splitlines()
    (tmp_path / "mine").mkdir()
    for line in lines[:-1]:
        if line.startswith("# "):
            path = Path(line.removeprefix("# "))
            path.write_text("")
        else:
            path.write_text(f"{path.read_text()}{line}\n")
    command = lines[-1].removeprefix("# stillhouse ").split()
    assert retention.run(parser().parse_args([*command, "--dry-run"])) == Exit.DONE
    shown = capsys.readouterr().out
    assert "mine: teacher, seed 1" in shown
    assert "2 runs, 74 updates" in shown


def test_a_file_that_is_not_there_and_ranks_that_do_not_divide_the_batch_are_one_line(words):
    with pytest.raises(LaunchError, match=r"^/nowhere.csv: expected a file of examples, got none there; check the path$"):
        classify.run(parser().parse_args(["classify", "/nowhere.csv", *words[2:]]))
    with pytest.raises(LaunchError, match=r"^--batch: expected a multiple of the 3 ranks, got 16; change either$"):
        classify.run(parser().parse_args([*words, "--ranks", "3"]))
