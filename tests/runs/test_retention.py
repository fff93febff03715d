"""A retention proof as a user starts it, with real runs: stopped, continued, and held against the runs' own reports."""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fork_server import ForkServer
from run_lines import lines
from task_files import make_task

from launcher.commands.parser import parser
from launcher.errors import LaunchError
from launcher.process.signals import CAUGHT, Exit
from launcher.report.results import read_results
from launcher.retention import retention
from launcher.run_folder.metrics_file import last_train_line
from stillhouse.errors import StillhouseError

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
ROOT = Path(__file__).resolve().parents[2]
TRAIN = ["train.global_batch=16", "train.micro_batch=16", "train.precision=fp32", "report.every_updates=1", "checkpoint.every_updates=2"]


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
    """The runs that this process starts are forked."""
    fork_server.fork_jobs(monkeypatch)


@pytest.fixture
def proof(school, tmp_path: Path) -> Path:
    """The settings of a proof on two invented tasks."""
    base = tmp_path / "task.yaml"
    base.write_text("run: {folder: x}\ndata: {kind: classification}\ntrain: {global_batch: 8, micro_batch: 8, epochs: 1}\n")
    tasks = {
        name: {"config": str(base), "settings": list(make_task(tmp_path / kind, kind).settings)}
        for name, kind in (("moods", "classification"), ("ratings", "regression"))
    }
    layers = ["student.layers=[0, 2]", "student.architecture=same"]
    values = {
        "settings": TRAIN,
        "tasks": tasks,
        "teacher": {"model": str(school.teacher), "learning_rates": [1e-5, 3e-3], "epochs": 1},
        "students": {
            "alone": {"start": "base", "distilled": False, "learning_rates": [3e-3], "epochs": 1, "settings": layers},
            "distilled": {"learning_rates": [3e-3], "epochs": 1, "settings": layers, "without_teacher": "alone"},
        },
        "seeds": [1, 2],
    }
    file = tmp_path / "small.yaml"
    file.write_text(yaml.safe_dump(values, sort_keys=False))
    return file


def arguments(proof: Path, *words: str) -> list[str]:
    return ["retention", "--config", str(proof), *words, "--folder", str(proof.parent / "proof")]


def test_a_stopped_proof_goes_on_and_reports_what_its_runs_reported(proof, forked_jobs, tmp_path, capsys):
    root = tmp_path / "proof"
    first = root / "moods" / "teacher" / "rate-1e-05" / "seed-1"
    command = [sys.executable, "-m", "launcher.cli", *arguments(proof)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while (last_train_line(first) or {"update": 0})["update"] < 3:
        assert process.poll() is None
        assert time.monotonic() < end
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    said, _ = process.communicate()
    assert process.returncode == Exit.SAVED_AFTER_SIGNAL
    assert "SIGINT: the running runs save a checkpoint and end" in said
    assert "stopped: 0 of 14 runs are done; start again to continue" in said
    cut_short = 0 if (first / "report.json").exists() else 1  # a fast machine may have finished it before the signal came

    assert retention.run(parser().parse_args(arguments(proof))) == Exit.DONE
    shown = capsys.readouterr().out
    assert [line["event"] for line in lines(first, "event")].count("resumed") == cut_short
    assert "moods: teacher: learning rate 0.003 is the best on dev" in shown
    assert "14/14 ratings: distilled, seed 2: pearson" in shown
    assert "left" in shown
    results = read_results(root / "results.json")
    assert [task.name for task in results.tasks] == ["moods", "ratings"]
    for task in results.tasks:
        assert [(model.name, model.role) for model in task.models] == [
            ("teacher", "teacher"),
            ("alone", "fine_tuned"),
            ("distilled", "task_distilled"),
        ]
        for model in task.models:
            for run in model.runs:
                own = json.loads((root / task.name / model.name / "rate-0.003" / f"seed-{run.seed}" / "report.json").read_text())
                assert run.value == own["dev"][task.metric]
                assert [run.low, run.high] == own["dev"]["intervals"][task.metric]
                assert run.curve
                if model.name == "distilled":  # the teacher of the same seed
                    assert own["teachers"][0][task.metric] == pytest.approx(task.teacher.runs[run.seed - 1].value, abs=1e-6)
            assert [run.seed for run in model.runs] == [1, 2]
    assert task.teacher.parameters > task.students[0].parameters
    assert any("chosen on dev" in note for note in results.notes)
    assert "retained" in (root / "table.txt").read_text()
    assert (root / "report.html").stat().st_size > 10_000
    assert not list(root.rglob("checkpoints"))

    before = {path: path.stat().st_mtime_ns for path in root.rglob("student/*")}
    pages = (root / "report.html").read_bytes()
    assert retention.run(parser().parse_args(arguments(proof))) == Exit.DONE
    assert {path: path.stat().st_mtime_ns for path in root.rglob("student/*")} == before
    assert (root / "report.html").read_bytes() == pages
    with pytest.raises(LaunchError, match=r"expected the run that the settings describe, got another \(train.clip: .* remove that folder"):
        retention.run(parser().parse_args(arguments(proof, f"settings=[{', '.join([*TRAIN, 'train.clip=0.5'])}]")))


def test_pretrained_students_are_scored_against_their_tokens_and_parts_are_compared(start, proof, forked_jobs, tmp_path, capsys):
    run = start(tmp_path / "pretrained", "train.updates=3", "student.layers=[0, 2]")
    assert run.wait() == [0], run.output
    tokens = json.loads((run.folder / "report.json").read_text())["tokens"]
    values = yaml.safe_load(proof.read_text())
    del values["tasks"]["ratings"]
    layers = values["students"]["alone"]["settings"]
    (tmp_path / "more.jsonl").write_text('{"text": "ba de fi go"}\n{"text": "ma ne"}\n')
    common = {"learning_rates": [3e-3], "epochs": 1}
    values |= {
        "seeds": [1],
        "students": {
            "base": {"start": "base", **common, "settings": layers},
            "pretrained": {"start": str(run.folder), **common},
            "pretrained, alone": {"start": str(run.folder / "student"), "distilled": False, **common},
            "pretrained, more text": {"start": str(run.folder), **common, "settings": [f"data.unlabelled={tmp_path / 'more.jsonl'}"]},
            "random": {"start": "random", **common, "settings": layers},
        },
    }
    values["teacher"]["learning_rates"] = [3e-3]
    proof.write_text(yaml.safe_dump(values, sort_keys=False))
    assert retention.run(parser().parse_args(arguments(proof))) == Exit.DONE, capsys.readouterr().out
    (task,) = read_results(tmp_path / "proof" / "results.json").tasks
    assert {model.name: (model.role, model.pretraining_tokens) for model in task.students} == {
        "base": ("task_distilled", 0),
        "pretrained": ("distilled", tokens),
        "pretrained, alone": ("pretraining_distilled", tokens),
        "pretrained, more text": ("distilled", tokens),
        "random": ("task_distilled", None),
    }
    report = json.loads((tmp_path / "proof" / "report.json").read_text())
    assert [(part["part"], part["student"], part["without"]) for part in report["parts"]] == [
        ("pretraining", "pretrained", "base"),
        ("task", "pretrained", "pretrained, alone"),
        ("transfer", "pretrained, more text", "pretrained"),
        ("start", "base", "random"),
    ]
    assert [one["tokens"] for one in report["pretraining"]["students"]] == [0, tokens, tokens, tokens]
    assert "Score against pretraining tokens" in (tmp_path / "proof" / "report.html").read_text()


def test_latency_is_measured_when_asked_or_read_from_a_file_and_else_the_page_has_the_command(proof, forked_jobs, tmp_path, capsys):
    values = yaml.safe_load(proof.read_text())
    values["seeds"] = [1]
    values["teacher"]["learning_rates"] = [3e-3]
    proof.write_text(yaml.safe_dump(values, sort_keys=False))
    root = tmp_path / "proof"

    def milliseconds(*words: str) -> dict[str, float | None]:
        assert retention.run(parser().parse_args(words or arguments(proof))) == Exit.DONE, capsys.readouterr().out
        (first, second) = read_results(root / "results.json").tasks
        assert [model.latency_ms for model in first.models] == [model.latency_ms for model in second.models], "heads differ a little only"
        return {model.name: model.latency_ms for model in first.models}

    assert milliseconds() == {"teacher": None, "alone": None, "distilled": None}
    page = (root / "report.html").read_text()
    assert "not measured" in page
    command = re.search("<code>stillhouse (.*)</code>", page)
    assert command
    assert f"`stillhouse {command[1]}`" in (root / "report.md").read_text()

    measured = milliseconds(*command[1].split())
    rows = json.loads((root / "latency.json").read_text())["rows"]
    assert set(measured.values()) == {row["p50_ms"] for row in rows if row["form"] == "torch fp32"}
    page = (root / "report.html").read_text()
    assert "Quality against latency, ms per example" in page
    assert "Latency: torch fp32, 1 x 64 tokens, 1 thread, median of 50, " in page
    before = (root / "latency.json").stat().st_mtime_ns
    assert milliseconds(*command[1].split()) == measured
    assert (root / "latency.json").stat().st_mtime_ns == before, "the same weights are not measured again"

    file = (root / "latency.json").rename(tmp_path / "mine.json")
    assert milliseconds(*arguments(proof, f"latency={file}")) == measured
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"models": [model | {"files": {"model.safetensors": "0"}} for model in content["models"]]}))
    assert set(milliseconds(*arguments(proof, f"latency={file}")).values()) == {None}
    assert "mine.json has none of these models in torch fp32" in (root / "report.html").read_text()


def test_int8_files_have_their_own_size_score_and_latency_and_are_made_once(proof, forked_jobs, tmp_path, capsys):
    values = yaml.safe_load(proof.read_text())
    values["seeds"], values["teacher"]["learning_rates"] = [1], [3e-3]
    values |= {"int8": True, "latency": True}
    del values["students"]["alone"], values["students"]["distilled"]["without_teacher"]
    proof.write_text(yaml.safe_dump(values, sort_keys=False))
    root = tmp_path / "proof"
    assert retention.run(parser().parse_args(arguments(proof))) == Exit.DONE, capsys.readouterr().out
    first, second = read_results(root / "results.json").tasks
    for task in (first, second):
        for model in task.models:
            file = model.exported
            assert file is not None
            record = json.loads(next(root.glob(f"onnx/*/{model.name}/stillhouse.json")).read_text())
            assert record["precision"] == "int8"
            assert 0 < file.bytes < (model.bytes or 0)
            assert file.value is not None
            assert abs(file.value - model.runs[0].value) < 0.2
            assert file.latency_ms is not None
    rows = json.loads((root / "latency.json").read_text())["rows"]
    assert {row["form"] for row in rows} == {"torch fp32", "torch bf16", "onnx int8"}
    page = (root / "report.html").read_text()
    assert "Quality against size on disk, MB" in page
    assert "teacher, INT8" in page
    assert "Latency: torch fp32 and onnx int8, 1 x 64 tokens" in page
    files = {path: path.stat().st_mtime_ns for path in [root / "latency.json", *root.glob("onnx/*/*/model.onnx")]}
    assert len(files) == 1 + len(first.models) + len(second.models)
    assert retention.run(parser().parse_args(arguments(proof))) == Exit.DONE
    assert {path: path.stat().st_mtime_ns for path in files} == files, "the same weights are neither exported nor measured again"


def test_a_failed_run_is_named_and_the_others_go_on(proof, forked_jobs, capsys):
    values = yaml.safe_load(proof.read_text())
    del values["tasks"]["ratings"]
    values["teacher"]["learning_rates"] = [3e-3]
    values["students"]["alone"] = {"start": "base", "distilled": False, "epochs": 1, "settings": ["optimizer.betas=[0.9, 0.999]"]}
    values["seeds"] = [1]
    proof.write_text(yaml.safe_dump(values, sort_keys=False))
    root = proof.parent / "proof"
    broken = root / "initial" / "alone"
    broken.mkdir(parents=True)
    (broken / "config.json").write_text("{}")
    assert retention.run(parser().parse_args(arguments(proof))) == Exit.FAILED
    shown = capsys.readouterr().out
    assert "failed: moods: alone, seed 1: " in shown
    results = read_results(root / "results.json")
    assert [model.name for model in results.tasks[0].models] == ["teacher", "distilled"]
    assert any(note.startswith("Failed, and not in the tables: moods: alone") for note in results.notes)


def test_a_dry_run_prints_the_runs_with_rows_and_updates(proof, capsys):
    assert retention.run(parser().parse_args([*arguments(proof), "--dry-run"])) == Exit.DONE
    shown = capsys.readouterr().out
    assert [line for line in shown.splitlines() if line.startswith("moods: teacher")] == [
        "moods: teacher, rate 1e-05, seed 1     240       15  to do",
        "moods: teacher, rate 0.003, seed 1     240       15  to do",
        "moods: teacher, rate 1e-05, seed 2     240       15  to do",
    ]
    assert "14 runs, 210 updates, in " in shown
    assert not (proof.parent / "proof").exists()


def test_a_dry_run_counts_the_rows_of_a_transfer_set_for_the_student_that_has_one(proof, tmp_path, capsys):
    (tmp_path / "more.txt").write_text("".join(f"one more line, number {number}\n" for number in range(160)))
    word = f"students.distilled.settings=[data.unlabelled={tmp_path / 'more.txt'}]"
    assert retention.run(parser().parse_args([*arguments(proof), word, "--dry-run"])) == Exit.DONE
    shown = [line.split() for line in capsys.readouterr().out.splitlines() if line.startswith("moods: ")]
    assert {tuple(line[-6:-3]) for line in shown if "distilled," in line} == {("240", "+", "160")}
    assert all("+" not in line for line in shown if "distilled," not in line)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("students.alone.start=teacher", "students.alone.start: expected base, random or a folder without a teacher, got teacher"),
        ("students.distilled.without_teacher=nobody", "students.distilled.without_teacher: expected a student with distilled: false"),
        (
            "tasks.moods.settings=[train.seed=4]",
            "tasks.moods.settings: expected settings that are not decided for all runs, got train.seed",
        ),
        ("tasks.moods.settings=[data.train=/nowhere.jsonl,data.kind=classification]", "/nowhere.jsonl: expected"),
        ("students.teacher={}", "students: expected names that differ in letters or digits, got teacher and teacher"),
        (
            "students.alone.start=runs/never/student",
            "students.alone.start: expected a model folder or a run folder, got runs/never/student",
        ),
        ("latency=/nowhere.json", "latency: expected true or a file of stillhouse latency --json, got /nowhere.json, No such file"),
        ("seeds=[1, 1]", "seeds: expected different seeds, got"),
    ],
)
def test_mistakes_are_one_line_before_the_first_run(proof, word, message):
    with pytest.raises(StillhouseError, match="expected") as error:
        retention.run(parser().parse_args(arguments(proof, word)))
    assert "\n" not in str(error.value)
    assert message in str(error.value)
    assert not (proof.parent / "proof").exists()
