"""`stillhouse export`: folders that run with onnxruntime and tokenizers alone, and exports that are refused with figures."""

import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer

from kd.models.loading import load_mlm
from launcher.commands.parser import parser
from launcher.deployment.conversion.graph import Converted
from launcher.deployment.conversion.problems import problems_of
from launcher.deployment.conversion.quality import Quality
from launcher.deployment.export import run
from launcher.deployment.folder import read_exported
from launcher.errors import LaunchError
from stillhouse.errors import StillhouseError

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
GOOD = Quality("80 rows of dev", 80, "accuracy", 0.9, 0.9, 0.0, -1.0, 1.0, 1.0, 0.01)
FAST = {"share_of_fp32": 0.5, "fp32_ms": 2.0, "exported_ms": 1.0}


def export(model, out, *words):
    return run(parser().parse_args(["export", str(model), "--out", str(out), *map(str, words)]))


@pytest.fixture(scope="module")
def mlm(corpus, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("mlm") / "fp32"
    assert export(corpus.model, folder, "--shards", corpus.shards, "--windows", 32) == 0
    return folder


def test_the_lines_of_the_readme_run_with_onnxruntime_and_tokenizers_alone(mlm, run_readme):
    assert "import numpy, onnxruntime, tokenizers\n" in (mlm / "README.md").read_text()
    assert run_readme(mlm)


def test_a_missing_tokenizer_is_one_line(corpus, tmp_path):
    shutil.copytree(corpus.model, tmp_path / "model", ignore=shutil.ignore_patterns("token*", "vocab*", "special*"))
    with pytest.raises(StillhouseError, match=r"^[^\n]*tokenizer[^\n]*$"):
        export(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_plain_session_gives_the_logits_of_the_original(corpus, mlm):
    ids = np.array([Tokenizer.from_file(str(mlm / "tokenizer.json")).encode(corpus.texts[0][:80]).ids])
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    session = onnxruntime.InferenceSession(str(mlm / "model.onnx"))
    got = session.run(None, {value.name: feeds[value.name] for value in session.get_inputs()})[0]
    encoder = load_mlm(str(corpus.model))
    with torch.no_grad():
        expected = encoder.hf(input_ids=torch.from_numpy(ids), attention_mask=torch.ones(ids.shape, dtype=torch.int64)).logits.numpy()
    np.testing.assert_allclose(got, expected, atol=1e-4)


def test_the_record_says_what_was_made_from_what(corpus, mlm):
    record = read_exported(mlm).record
    assert record["task"] == "masked_lm"
    assert record["bytes"] == (mlm / "model.onnx").stat().st_size
    assert record["opset"] == 20
    assert record["made_from"]["name"] == "model"
    assert record["quality"]["agreement"] == 1.0
    assert record["parity"]["fp32"]["largest_difference"] < 1e-4
    assert str(corpus.model.parent) not in (mlm / "stillhouse.json").read_text() + (mlm / "README.md").read_text()


def test_eight_bits_without_data_to_compare_on_are_refused_and_forced(corpus, tmp_path):
    with pytest.raises(LaunchError, match=r"int8: expected --task-config or --shards to compare it with the original on, got neither"):
        export(corpus.model, tmp_path / "out", "--precision", "int8")
    assert list(tmp_path.iterdir()) == []
    export(corpus.model, tmp_path / "out", "--precision", "int8", "--force", "--keep-fp32", "layers.0.attention")
    record = read_exported(tmp_path / "out").record
    assert record["quality"] is None
    assert record["written_in_spite_of"][0].startswith("int8: expected --task-config")
    parts = record["precision_by_part"]
    assert parts["bert.encoder.layer.0.attention.self.query.weight"] == "fp32"
    assert parts["bert.encoder.layer.1.attention.self.query.weight"] == "int8, a scale per output"
    assert parts["bert.embeddings.word_embeddings.weight"] == "int8, a scale per row"


def test_a_classifier_is_compared_on_its_task(classifier_task, tmp_path):
    model, config = classifier_task
    export(model, tmp_path / "out", "--precision", "int8", "--task-config", config, "--force", "--max-drop", 100)
    record = read_exported(tmp_path / "out").record
    assert record["labels"] == ["long", "short"]
    assert record["quality"]["rows"] == 60
    assert record["quality"]["metric"] == "accuracy"
    assert record["quality"]["largest_logit_difference"] > 0
    assert record["precision_by_part"]["classifier.weight"] == "fp32"


def test_bf16_is_half_of_fp32(corpus, tmp_path):
    words = ("--format", "safetensors", "--precision", "bf16", "--shards", corpus.shards, "--windows", 32, "--max-drop", 100)
    export(corpus.model, tmp_path / "out", *words)
    record = read_exported(tmp_path / "out").record
    assert (tmp_path / "out" / "model.safetensors").stat().st_size < 0.6 * record["made_from"]["bytes_fp32"]
    assert load_mlm(str(tmp_path / "out")).layers == load_mlm(str(corpus.model)).layers


@pytest.mark.parametrize(
    ("quality", "speed", "bytes_", "message"),
    [
        (replace(GOOD, drop=0.6), FAST, 10, r"quality: expected at most 0.5 points lost, got 0.60 .*try --precision auto"),
        (GOOD, FAST | {"share_of_fp32": 1.2, "exported_ms": 2.4}, 10, r"speed: .* 2.00 ms of CPU time, got 2.40 ms; keep fp32"),
        (GOOD, FAST, 100, r"size: expected fewer than 100 bytes, got 100; keep fp32, or take a smaller student"),
    ],
)
def test_a_worse_model_is_named_with_its_figures(quality, speed, bytes_, message):
    arguments = parser().parse_args(["export", "m", "--out", "o", "--precision", "int8"])
    (line,) = problems_of(Converted(b"", None, None, {}, bytes_, 100), quality, speed, arguments)
    assert re.search(message, line)
    assert problems_of(Converted(b"", None, None, {}, 10, 100), GOOD, FAST, arguments) == []


def test_a_target_that_holds_something_else_is_refused_before_any_work(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(LaunchError, match="expected a free name or an earlier export to replace, got something else"):
        export("no/model", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_constant_predictor_is_named(classifier_task, tmp_path):
    """A classifier whose bias decides every row."""
    model, config = classifier_task
    shutil.copytree(model, tmp_path / "model")
    weights = load_file(tmp_path / "model" / "model.safetensors")
    weights["classifier.bias"] = torch.tensor([100.0, 0.0])
    save_file(weights, tmp_path / "model" / "model.safetensors", {"format": "pt"})
    export(tmp_path / "model", tmp_path / "out", "--task-config", config)
    assert "the original predicts the same for every row, so this comparison proves nothing" in (tmp_path / "out" / "README.md").read_text()


def test_an_unknown_part_is_one_line(corpus, tmp_path):
    with pytest.raises(LaunchError, match=r"^--keep-fp32 layers.9: expected a part of the model, got none of that name"):
        export(corpus.model, tmp_path / "out", "--precision", "int8", "--keep-fp32", "layers.9")


def test_a_changed_file_is_found_by_its_digest(mlm, tmp_path):
    for file in mlm.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    content = bytearray((tmp_path / "model.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(
        LaunchError, match=r"model\.onnx: expected sha256 [0-9a-f]{12}… as exported, got [0-9a-f]{12}; export the model again"
    ):
        read_exported(tmp_path)
