"""Mistakes in task runs that would cost weeks: each is refused in one line before training, or said at the end."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from task_files import TaskFiles, make_task
from tokenizers import Tokenizer

from data_shards.tasks.labels import resolve_labels
from kd.tasks.loading import load_task
from launcher.config.load import load_run
from launcher.tasks.scores import outputs_of
from launcher.tasks.source import TaskSource

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
TRAIN = ("train.global_batch=16", "train.micro_batch=8", "train.precision=fp32", "optimizer.learning_rate=3e-3", "optimizer.warmup=0.1")
DISTIL = ("student.init=teacher", "student.architecture=same", "train.updates=2")


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("config") / "task.yaml"
    path.write_text("run: {folder: x}\ndata: {kind: classification}\ntrain: {global_batch: 8, micro_batch: 8}\n")
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> TaskFiles:
    return make_task(tmp_path_factory.mktemp("tasks") / "classification", "classification")


@pytest.fixture
def teacher(files, school, start, config) -> Path:
    """The student folder of a fine-tuned run, made once."""
    folder = files.folder / "teacher"
    if not (folder / "report.json").exists():
        run = start(folder, *files.settings, *TRAIN, f"student.init={school.teacher}", "train.updates=60", config=config, task=True)
        assert run.wait() == [0], run.output
    return folder / "student"


@pytest.fixture
def copy(teacher, tmp_path) -> Callable[..., Path]:
    """copy(names, order, change): the teacher with these label names, its rows in this order, and changed weights."""

    def make(names: list[str] | None = None, order: list[int] | None = None, change: Callable[[dict], None] = lambda weights: None) -> Path:
        folder = tmp_path / "other"
        shutil.copytree(teacher, folder)
        values = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
        if names is not None:
            values["id2label"] = {str(number): name for number, name in enumerate(names)}
            values["label2id"] = {name: number for number, name in enumerate(names)}
        if order is not None:
            for name in ("classifier.weight", "classifier.bias"):
                weights[name] = weights[name][order].contiguous()
        change(weights)
        (folder / "config.json").write_text(json.dumps(values))
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        return folder

    return make


@pytest.fixture
def distil(files, start, config, tmp_path):
    """distil(model, *settings): (the exit code, the output, report.json or None) of a short run."""

    def run(model: Path, *settings: str) -> tuple[int, str, dict | None]:
        folder = tmp_path / "run"
        started = start(folder, *files.settings, *TRAIN, *DISTIL, f"teacher.model={model}", *settings, config=config, task=True)
        (code,) = started.wait()
        report = folder / "report.json"
        return code, started.output, json.loads(report.read_text()) if report.exists() else None

    return run


def refused(result: tuple[int, str, dict | None]) -> str:
    """The one line of a refusal."""
    code, output, report = result
    assert code == 2, output
    assert report is None
    assert "Traceback" not in output
    (line,) = [line for line in output.splitlines() if "expected" in line]
    return line


def accuracy(teacher: Path) -> float:
    return json.loads((teacher.parent / "report.json").read_text())["dev"]["accuracy"]


def test_a_teacher_with_its_labels_in_another_order_is_read_by_name(copy, distil, teacher):
    code, output, report = distil(copy(["good", "bad"], [1, 0]))
    assert code == 0, output
    assert report["teachers"][0]["accuracy"] == accuracy(teacher)


@pytest.mark.parametrize("names", [["LABEL_0", "LABEL_1"], ["awful", "great"]])
def test_labels_of_unknown_order_are_refused_until_they_are_mapped(names, copy, distil, teacher):
    other = copy(names)
    line = refused(distil(other))
    assert "the data has bad, good" in line
    assert f"has {names[0]}, {names[1]}" in line
    assert "set teacher.label_map: {" in line
    code, output, report = distil(other, f"teacher.label_map={{bad: {names[0]}, good: {names[1]}}}")
    assert code == 0, output
    assert report["teachers"][0]["accuracy"] == accuracy(teacher)


def constant(weights: dict) -> None:
    weights["classifier.weight"].zero_()
    weights["classifier.bias"].copy_(torch.tensor([0.0, 1.0]))


def test_a_teacher_that_predicts_one_label_is_refused_unless_allowed(copy, distil):
    other = copy(change=constant)
    line = refused(distil(other))
    assert "teacher.model: expected a teacher better than a constant prediction on dev (accuracy" in line
    assert "set teacher.allow_untrained: true" in line
    code, output, report = distil(other, "teacher.allow_untrained=true", "optimizer.learning_rate=1e-9")
    assert code == 0, output
    assert report["dev"]["constant_prediction"] == "good"
    assert report["remarks"][0] == "the student predicts good for every example of dev"
    assert "note: the student predicts good for every example of dev" in output
    assert any(remark.startswith("dev is too small to tell the student from the teacher: accuracy") for remark in report["remarks"])


def test_a_teacher_whose_outputs_are_not_finite_is_refused(copy, distil):
    line = refused(distil(copy(change=lambda weights: weights["classifier.weight"].fill_(3e38))))
    assert "teacher.model: expected finite outputs, got NaN or infinity in" in line


def test_a_teacher_whose_weights_are_not_finite_is_refused(copy, distil):
    line = refused(distil(copy(change=lambda weights: weights["classifier.bias"].fill_(float("nan")))))
    assert "expected finite weights, got NaN or infinity in classifier.bias" in line


def test_a_teacher_without_one_of_its_weights_is_refused(copy, distil):
    def cut(weights: dict) -> None:
        del weights[next(name for name in weights if name.endswith("layer.0.output.dense.weight"))]

    assert "layer.0.output.dense.weight" in refused(distil(copy(change=cut)))


def test_a_teacher_without_a_head_is_refused(distil, school):
    assert "expected a model fine-tuned for classification" in refused(distil(school.teacher))


@pytest.fixture
def other_tokenizer(copy) -> Path:
    """The teacher with two ids exchanged in its tokenizer and in its embeddings: it reads every text as before."""

    def exchange(weights: dict) -> None:
        (table,) = [weight for name, weight in weights.items() if name.endswith("word_embeddings.weight")]
        table[[10, 11]] = table[[11, 10]]

    folder = copy(change=exchange)
    values = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = values["model"]["vocab"]
    if isinstance(vocabulary, dict):
        first, second = (next(token for token, number in vocabulary.items() if number == wanted) for wanted in (10, 11))
        vocabulary[first], vocabulary[second] = 11, 10
    else:
        vocabulary[10], vocabulary[11] = vocabulary[11], vocabulary[10]
    (folder / "tokenizer.json").write_text(json.dumps(values))
    assert Tokenizer.from_file(str(folder / "tokenizer.json")).id_to_token(10) is not None
    return folder


def test_a_teacher_with_another_tokenizer_reads_the_text_with_its_own(other_tokenizer, teacher, distil):
    code, output, report = distil(other_tokenizer, f"student.init={teacher}")
    assert code == 0, output
    assert report["teachers"][0]["accuracy"] == accuracy(teacher)


def test_terms_on_states_are_refused_where_tokenizers_differ(other_tokenizer, teacher, distil):
    line = refused(distil(other_tokenizer, f"student.init={teacher}", "objective=[{kind: hidden_mse}]"))
    assert "objective.0" in line
    assert "the term compares hidden states at positions" in line


def test_a_run_with_bad_data_leaves_an_earlier_run_as_it_is(files, teacher, start, config):
    before = {file: file.stat().st_mtime_ns for file in teacher.parent.rglob("*") if file.is_file()}
    settings = (*files.settings, *TRAIN, f"student.init={teacher}", "train.updates=60", "data.columns.label=stars")
    run = start(teacher.parent, *settings, config=config, task=True)
    assert run.wait() == [2], run.output
    (line,) = [line for line in run.output.splitlines() if "expected" in line]
    assert "stars" in line
    assert {file: file.stat().st_mtime_ns for file in teacher.parent.rglob("*") if file.is_file()} == before


def test_padding_changes_no_prediction(files, teacher, config):
    made = load_run(config, [*files.settings, "train.updates=1", f"student.init={teacher}"])
    source = TaskSource.read(made)
    model = load_task(str(teacher), "classification", lambda _where, names: resolve_labels(source.labels, dict(enumerate(names))))
    task = source.encoded("dev", str(teacher))
    alone, together = (np.stack(outputs_of(model, task, batch).logits) for batch in (1, 64))
    assert (alone.argmax(-1) == together.argmax(-1)).all()
    assert np.abs(alone - together).max() < 2e-5  # sums in another order
