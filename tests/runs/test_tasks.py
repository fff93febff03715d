"""Runs on tasks of every kind: they learn, distil, continue bit for bit after a kill, and leave a folder that transformers reads alone."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from markupsafe import escape
from run_lines import facts
from safetensors.torch import load_file
from task_files import TaskFiles, make_task
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from launcher.commands.parser import parser
from launcher.deployment import score
from launcher.errors import LaunchError

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
KINDS = ("classification", "regression", "multi_label", "tagging", "question_answering")
FINE_TUNE = (
    *("train.global_batch=16", "train.micro_batch=8", "train.updates=60", "train.precision=fp32"),
    *("optimizer.learning_rate=3e-3", "optimizer.warmup=0.1", "report.every_updates=1", "checkpoint.every_updates=10"),
)
DISTIL = ("student.init=teacher", "student.architecture=same", "train.updates=30")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("config") / "task.yaml"
    path.write_text("run: {folder: x}\ndata: {kind: classification}\ntrain: {global_batch: 8, micro_batch: 8}\n")
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, TaskFiles]:
    folder = tmp_path_factory.mktemp("tasks")
    return {kind: make_task(folder / kind, kind) for kind in KINDS}


@pytest.fixture
def fine_tuned(files, school, start, config, tmp_path_factory):
    """fine_tuned(kind): the folder of a run that fine-tuned the small encoder, made once."""

    def make(kind: str) -> Path:
        folder = files[kind].folder / "teacher"
        if not (folder / "report.json").exists():
            run = start(folder, *files[kind].settings, f"student.init={school.teacher}", *FINE_TUNE, config=config, task=True)
            assert run.wait() == [0], run.output
        return folder

    return make


def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def skill(scores: dict, key: str) -> float:
    """The share of the way from the constant prediction to a perfect one."""
    return (scores[key] - scores["constant"][key]) / (1 - scores["constant"][key])


@pytest.mark.parametrize("kind", KINDS)
def test_a_task_is_learned_and_distilled(kind, files, fine_tuned, start, config, tmp_path):
    teacher = fine_tuned(kind)
    made = report(teacher)
    key = made["task"]["metric"]
    assert skill(made["dev"], key) > 0.4, made["dev"]
    low, high = made["dev"]["intervals"][key]
    assert low <= made["dev"][key] <= high
    words = (*files[kind].settings, *FINE_TUNE, f"teacher.model={teacher}/student", *DISTIL)
    run = start(tmp_path / "student", *words, config=config, task=True)
    assert run.wait() == [0], run.output
    distilled = report(tmp_path / "student")
    assert distilled["teachers"][0][key] == pytest.approx(made["dev"][key], abs=1e-6)
    assert skill(distilled["dev"], key) > 0.2, distilled["dev"]
    assert distilled["parameters"] < made["parameters"]


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_runs_end_bit_identical(ranks, files, fine_tuned, start, config, tmp_path):
    teacher = f"teacher.model={fine_tuned('classification')}/student"
    words = (*files["classification"].settings, *FINE_TUNE, teacher, *DISTIL, "train.updates=14", "checkpoint.every_updates=4")
    undisturbed = start(tmp_path / "undisturbed", *words, config=config, task=True, ranks=ranks)
    assert set(undisturbed.wait()) == {0}, undisturbed.output
    folder = tmp_path / "killed"
    for moment in (5, 10):
        run = start(folder, *words, config=config, task=True, ranks=ranks)
        run.wait_for_update(moment)
        for process in run.processes:
            os.kill(process.pid, signal.SIGKILL)
        run.wait()
    run = start(folder, *words, config=config, task=True, ranks=ranks)
    assert set(run.wait()) == {0}, run.output
    assert facts(folder) == facts(tmp_path / "undisturbed")
    expected = load_file(tmp_path / "undisturbed" / "student" / "model.safetensors")
    again = load_file(folder / "student" / "model.safetensors")
    assert all(torch.equal(weight, again[name]) for name, weight in expected.items())
    assert report(folder)["dev"] == report(tmp_path / "undisturbed")["dev"]


@pytest.mark.parametrize(
    ("kind", "ranks", "more"),
    [
        ("classification", 2, ("train.zero_stage=3", "teacher.mode=zero3")),
        ("tagging", 4, ("train.micro_batch=2",)),
        ("question_answering", 2, ()),
    ],
)
def test_ranks_and_stages_do_not_change_the_losses(kind, ranks, more, files, fine_tuned, start, config, tmp_path):
    words = (*files[kind].settings, *FINE_TUNE, f"teacher.model={fine_tuned(kind)}/student", *DISTIL, "train.updates=4")
    words = (*words, "student.dropout=0.0")
    alone = start(tmp_path / "alone", *words, config=config, task=True)
    assert alone.wait() == [0], alone.output
    together = start(tmp_path / "together", *words, *more, config=config, task=True, ranks=ranks)
    assert set(together.wait()) == {0}, together.output
    for one, other in zip(facts(tmp_path / "alone"), facts(tmp_path / "together"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=2e-5)
    key = report(tmp_path / "alone")["task"]["metric"]
    assert report(tmp_path / "together")["dev"][key] == pytest.approx(report(tmp_path / "alone")["dev"][key], abs=0.02)


def test_transformers_alone_gives_the_reported_score(files, fine_tuned):
    folder = fine_tuned("classification")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "student").eval()
    tokenizer = AutoTokenizer.from_pretrained(folder / "student")
    rows = [json.loads(line) for line in (files["classification"].folder / "dev.jsonl").read_text().splitlines()]
    right = 0
    with torch.no_grad():
        for row in rows:
            logits = model(**tokenizer(row["text"], truncation=True, max_length=64, return_tensors="pt")).logits
            right += model.config.id2label[int(logits.argmax())] == row["label"]
    assert right / len(rows) == pytest.approx(report(folder)["dev"]["accuracy"], abs=1e-9)
    predicted = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    assert sum(line["label"] == line["prediction"] for line in predicted) == right


def test_predictions_of_each_scored_model_have_a_file_of_their_own(files, fine_tuned, config, tmp_path, monkeypatch, capsys):
    folder = fine_tuned("classification")
    for name in ("one", "two"):
        shutil.copytree(folder / "student", tmp_path / name / "student")
    monkeypatch.chdir(tmp_path)
    words = [word for setting in (*files["classification"].settings, *FINE_TUNE, "student.init=one/student") for word in ("--set", setting)]
    words = ["task", "score", "one/student", "./two/student/", "--config", config, *words, "--predictions"]
    assert score.run(parser().parse_args([*words, "new/folder"])) == 0
    written = {path.name: path.read_text() for path in (tmp_path / "new" / "folder").iterdir()}
    assert sorted(written) == ["one-student.jsonl", "two-student.jsonl"]
    assert len(set(written.values())) == 1
    texts = written["one-student.jsonl"], (folder / "predictions.jsonl").read_text()
    pairs = [[json.loads(line) for line in text.splitlines()] for text in texts]
    for ours, theirs in zip(*pairs, strict=True):  # a run may multiply with oneDNN, and scoring with MKL: the fifth digit may differ
        assert ours.pop("logits") == pytest.approx(theirs.pop("logits"), abs=2e-5)
        assert ours == theirs
    (tmp_path / "taken").write_text("")
    with pytest.raises(LaunchError, match="--predictions taken: expected a folder, got file exists; name another"):
        score.run(parser().parse_args([*words, "taken"]))


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_leaves_its_page_with_curves_samples_and_how_to_reproduce_it(kind, files, fine_tuned):
    folder = fine_tuned(kind)
    text, key = (folder / "report.html").read_text(), report(folder)["task"]["metric"]
    heading = key.replace("_", " ")
    for words in (
        '<p class="state">done</p>',
        f"Held-out {heading}",
        "constant prediction: ",
        " (95 %: ",
        "Events and warnings",
        "stillhouse task train --config ",
        f"kind: {kind}",
        "Predictions of the student on the development set",
    ):
        assert words in text, words
    assert "not recorded: sample predictions" not in text
    samples = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert 0 < len(samples) <= 12
    predicted = {line["id"]: line for line in map(json.loads, (folder / "predictions.jsonl").read_text().splitlines())}
    for sample in samples:
        assert sample["text"]
        assert {name: sample[name] for name in predicted[sample["id"]]} == predicted[sample["id"]]
        assert escape(sample["text"][:40]) in text
    if kind == "regression":
        errors = [abs(line["prediction"] - line["label"]) for line in predicted.values()]
        assert abs(samples[0]["prediction"] - samples[0]["label"]) == max(errors)
    elif kind == "classification":
        rights = sum(line["prediction"] == line["label"] for line in predicted.values())
        assert f"{rights:,} of {len(predicted):,} predictions equal their label" in text
        wrong = [line["id"] for line in predicted.values() if line["prediction"] != line["label"]][:8]
        assert [sample["id"] for sample in samples][: len(wrong)] == wrong
