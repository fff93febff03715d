"""`stillhouse task score` on exported folders: the scores of the original, with the labels matched by name."""

import json
from pathlib import Path

import pytest
import torch
from task_files import make_task
from transformers import AutoConfig, AutoTokenizer

from kd.models.config import quiet_transformers
from kd.tasks.model import MODEL_CLASSES, set_labels
from launcher.commands.parser import parser
from launcher.deployment.export import run as export
from launcher.deployment.score import run as score
from launcher.errors import LaunchError

pytestmark = [pytest.mark.slow, pytest.mark.tasks]


LABELS = {"classification": ["good", "bad"], "multi_label": ["good", "bad"], "tagging": ["O", "B-BAD", "B-GOOD"]}
"""Not in the order of the data."""


@pytest.fixture
def made(corpus, tmp_path):
    """made(kind): a model with a random head, and the words that name its task."""

    def make(kind: str) -> tuple[Path, list[str]]:
        config = AutoConfig.from_pretrained(corpus.model, num_hidden_layers=1)  # a second layer takes as long to export
        set_labels(config, kind, LABELS.get(kind, []))
        torch.manual_seed(5)
        with quiet_transformers():
            MODEL_CLASSES[kind].from_config(config).save_pretrained(tmp_path / "model")
            AutoTokenizer.from_pretrained(corpus.model).save_pretrained(tmp_path / "model")
        base = tmp_path / "task.yaml"
        base.write_text("run: {folder: x}\nstudent: {init: x}\ntrain: {global_batch: 16, micro_batch: 16, epochs: 1}\n")
        settings = [*make_task(tmp_path / "task", kind).settings, "data.max_length=48"]
        words = [one for setting in settings for one in ("--set", setting)]
        return tmp_path / "model", ["--config", str(base), *words]

    return make


def scores_of(out: Path, models: list[Path], task: list[str]) -> list[dict]:
    assert score(parser().parse_args(["task", "score", *map(str, models), *task, "--json", str(out)])) == 0
    return json.loads(out.read_text())


@pytest.mark.parametrize("kind", ["classification", "multi_label", "regression", "tagging", "question_answering"])
def test_an_export_has_the_scores_of_its_original(made, tmp_path, capsys, monkeypatch, kind):
    monkeypatch.setenv("COLUMNS", "200")  # a narrow table breaks its words
    model, task = made(kind)
    assert export(parser().parse_args(["export", str(model), "--out", str(tmp_path / "shipped")])) == 0
    capsys.readouterr()
    original, exported = scores_of(tmp_path / "scores.json", [model, tmp_path / "shipped"], task)
    said = capsys.readouterr().out
    assert exported["loss"] == pytest.approx(original["loss"], rel=1e-4)
    for key in original["metrics"]:
        assert exported[key] == pytest.approx(original[key], abs=1e-4), key
    assert (exported["form"], exported["served"]) == ("onnx fp32", "rows of like length in batches of 16")
    assert exported["bytes"] == (tmp_path / "shipped" / "model.onnx").stat().st_size
    assert "parameters" not in exported
    assert "onnx fp32" in said
    assert "rows of like length in batches of 16" in said


def test_a_test_split_without_labels_is_one_line_with_the_command_that_labels_it(made, tmp_path):
    model, task = made("classification")
    (tmp_path / "test.jsonl").write_text('{"text": "the miller"}\n')
    words = ["task", "score", str(model), *task, "--set", f"data.test={tmp_path}/test.jsonl", "--split", "test"]
    line = rf"^data\.test: expected labels to score, got none; name the column, or label its rows with stillhouse predict {model} FILE$"
    with pytest.raises(LaunchError, match=line):
        score(parser().parse_args(words))


def test_settings_may_stand_as_words_as_in_training(made, tmp_path):
    model, task = made("classification")
    words = [word for word in task if word != "--set"]
    (plain,), (same,) = scores_of(tmp_path / "scores.json", [model], task), scores_of(tmp_path / "scores.json", [model], words)
    assert same == plain
    with pytest.raises(
        LaunchError, match=r"expected a model folder or hub name, got settings alone: data\.kind=classification; name a model"
    ):
        scores_of(tmp_path / "scores.json", [], words)


def test_rows_beyond_the_positions_are_one_line_for_models_and_exports(made, tmp_path):
    model, task = made("classification")
    assert export(parser().parse_args(["export", str(model), "--out", str(tmp_path / "shipped")])) == 0
    for one in (model, tmp_path / "shipped"):
        with pytest.raises(LaunchError, match=r"data\.max_length: expected at most 48, the positions of .*, got 49; lower it$"):
            scores_of(tmp_path / "scores.json", [one], [*task, "--set", "data.max_length=49"])
    words = ["export", str(model), "--out", str(tmp_path / "other"), "--task-config", *task[1:], "--set", "data.max_length=49"]
    with pytest.raises(LaunchError, match=r"data\.max_length: expected at most 48, the positions of .*, got 49; lower it$"):
        export(parser().parse_args(words))


def test_bf16_weights_are_scored_in_bf16_as_their_export_compared_them(made, tmp_path):
    model, task = made("classification")
    words = ["--format", "safetensors", "--precision", "bf16", "--force", "--task-config", *task[1:], "--out", str(tmp_path / "shipped")]
    assert export(parser().parse_args(["export", str(model), *words])) == 0
    (exported,) = scores_of(tmp_path / "scores.json", [tmp_path / "shipped"], task)
    quality = json.loads((tmp_path / "shipped" / "stillhouse.json").read_text())["quality"]
    assert exported["accuracy"] == quality["exported"]


def test_another_kind_and_a_changed_file_are_one_line(made, tmp_path):
    model, task = made("classification")
    assert export(parser().parse_args(["export", str(model), "--out", str(tmp_path / "shipped")])) == 0
    other = made("regression")[1]
    with pytest.raises(
        LaunchError, match=r"shipped: expected a model for regression, got one for classification; choose the model's own task$"
    ):
        scores_of(tmp_path / "scores.json", [tmp_path / "shipped"], other)
    file = tmp_path / "shipped" / "model.onnx"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(LaunchError, match=r"model\.onnx: expected sha256 .* as exported, got .*; export the model again$"):
        scores_of(tmp_path / "scores.json", [tmp_path / "shipped"], task)
