"""`stillhouse classify` on a small csv, as a user starts it, and its dry run, whose configurations work as they are printed."""

import csv
import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from fork_server import ForkServer
from task_files import make_task

from launcher.commands.parser import parser
from launcher.errors import LaunchError
from launcher.process.signals import Exit
from launcher.report.results import read_results
from launcher.retention import classify, retention
from stillhouse.errors import StillhouseError

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def forked_jobs(monkeypatch: pytest.MonkeyPatch, fork_server: ForkServer) -> None:
    """The runs that this process starts are forked, with one thread each."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    fork_server.fork_jobs(monkeypatch)


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


def used(line: str, text: str) -> dict:
    """The output of the printed line with a text in the place of its first …."""
    command = line.replace("…", text, 1).replace("stillhouse", f"{sys.executable} -m launcher.cli", 1)
    said = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT, check=True)
    return json.loads(said.stdout)


def test_a_csv_becomes_a_student_a_report_and_a_line_that_uses_the_student(words, tmp_path, capsys):
    assert classify.run(parser().parse_args([*words, "--dev-fraction", "0.2"])) == Exit.DONE
    shown = capsys.readouterr().out
    (task,) = read_results(tmp_path / "mine" / "results.json").tasks
    assert task.examples == pytest.approx(48, abs=2)
    assert task.teacher.runs[0].value > 0.8
    assert task.students[0].parameters < task.teacher.parameters
    assert "0.1 of train" in (tmp_path / "mine" / "report.md").read_text(), "the epoch is not chosen on dev"
    assert shown.startswith("kind: classification, for it has 2 different labels; --kind sets another\n")
    line = shown.strip().splitlines()[-1]
    assert line == f"echo '…' | stillhouse predict {tmp_path / 'mine' / 'onnx'}"
    record = json.loads((tmp_path / "mine" / "onnx" / "stillhouse.json").read_text())
    assert record["precision"] == "int8" or "no int8 ONNX file: " in shown, "the comparison decides"
    assert record["quality"]["metric"] == "accuracy"
    assert used(line, "ba de fi go")["label"] == "good"
    with pytest.raises(LaunchError, match=r"task.yaml: expected the settings of this command, got others; choose another --out"):
        classify.run(parser().parse_args([*words, "--dev-fraction", "0.3"]))


def test_the_dry_run_prints_configurations_that_work_as_pasted(words, tmp_path, capsys):
    assert classify.run(parser().parse_args([*words, "--dry-run"])) == Exit.DONE
    assert not (tmp_path / "mine").exists()
    path, lines = None, capsys.readouterr().out.splitlines()
    (tmp_path / "mine").mkdir()
    assert lines[0] == "# kind: classification, for it has 2 different labels; --kind sets another"
    commands = [line.removeprefix("# stillhouse ") for line in lines if line.startswith("# stillhouse ")]
    for line in lines:
        if line.startswith(f"# {tmp_path}"):
            path = Path(line.removeprefix("# "))
            path.write_text("")
        elif not line.startswith("# "):
            assert path is not None
            path.write_text(f"{path.read_text()}{line}\n")
    assert shlex.split(commands[1])[0] == "export"
    assert "--precision int8" in commands[1]
    assert lines[-1].startswith("# if INT8 is refused: stillhouse export ")
    command = commands[0].split()
    assert retention.run(parser().parse_args([*command, "--dry-run"])) == Exit.DONE
    shown = capsys.readouterr().out
    assert "mine: teacher, seed 1" in shown
    assert "2 runs, 74 updates" in shown


@pytest.mark.parametrize(("kind", "message"), [("regression", "different numbers"), ("multi_label", "join 2 labels with ';'")])
def test_numbers_become_a_regression_and_several_labels_a_task_of_several(kind, message, words, tmp_path, capsys, monkeypatch):
    rows = [json.loads(line) for line in (make_task(tmp_path / kind, kind).folder / "train.jsonl").read_text().splitlines()]
    with Path(words[1]).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["stars", "review"])
        table.writerows([";".join(row["label"]) if kind == "multi_label" else row["label"], row["text"]] for row in rows)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)  # an installation without the extra
    assert classify.run(parser().parse_args([*words, "--dev-fraction", "0.2", "--epochs", "2"])) == Exit.DONE
    shown = capsys.readouterr().out
    assert f"kind: {kind}, for " in shown
    assert message in shown
    assert read_results(tmp_path / "mine" / "results.json").tasks[0].kind == kind
    assert "no ONNX file: onnxruntime: expected the package for ONNX, got none; run: pip install 'stillhouse[onnx]'" in shown
    assert not (tmp_path / "mine" / "onnx").exists()
    line = shown.strip().splitlines()[-1].replace("python", sys.executable, 1).replace("…", "ba de fi go")
    assert line.startswith(f"{sys.executable} -c 'from transformers import pipeline; ")
    said = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout
    assert "'score': " in said
    assert ("'label': 'good'" in said) == (kind == "multi_label")


def test_a_refused_precision_is_said_and_the_next_is_tried(words, tmp_path, capsys):
    """A folder of another kind at the target refuses both precisions: the student stays, and the line uses it."""
    (tmp_path / "mine" / "onnx").mkdir(parents=True)
    (tmp_path / "mine" / "onnx" / "notes.txt").write_text("mine")
    assert classify.run(parser().parse_args([*words, "--dev-fraction", "0.2"])) == Exit.DONE
    lines = capsys.readouterr().out.strip().splitlines()
    assert [line[:17] for line in lines if line.startswith("no ")] == ["no int8 ONNX file", "no fp32 ONNX file"]
    assert lines[-1].startswith("python -c ")
    assert (tmp_path / "mine" / "onnx" / "notes.txt").read_text() == "mine"


@pytest.mark.parametrize("option", ["--teacher", "--student"])
def test_a_mistyped_model_is_refused_before_a_file_is_written(option, words, tmp_path):
    with pytest.raises(StillhouseError, match=r"expected a model folder.* nothing there; check the path"):
        classify.run(parser().parse_args([*words, option, str(tmp_path / "nowhere")]))
    assert not (tmp_path / "mine").exists()


def test_kind_decides_over_the_guess(words, capsys):
    assert classify.run(parser().parse_args([*words, "--dry-run", "--kind", "multi_label"])) == Exit.DONE
    shown = capsys.readouterr().out
    assert "# kind: multi_label, for --kind says so\n" in shown
    assert "kind: multi_label\n" in shown


def test_a_file_that_is_not_there_and_ranks_that_do_not_divide_the_batch_are_one_line(words):
    with pytest.raises(LaunchError, match=r"^/nowhere.csv: expected a file of examples, got none there; check the path$"):
        classify.run(parser().parse_args(["classify", "/nowhere.csv", *words[2:]]))
    with pytest.raises(LaunchError, match=r"^--batch: expected a multiple of the 3 ranks, got 16; change either$"):
        classify.run(parser().parse_args([*words, "--ranks", "3"]))
