"""`stillhouse export`: folders that run with onnxruntime and tokenizers alone, and exports that are refused with figures."""

import json
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
from transformers import AutoConfig, AutoTokenizer

from kd.export.onnx_graph import export_graph
from kd.models.config import quiet_transformers
from kd.models.loading import load_mlm
from kd.tasks.model import MODEL_CLASSES, set_labels
from launcher.commands.parser import parser
from launcher.deployment.conversion.graph import Converted
from launcher.deployment.conversion.problems import problems_of
from launcher.deployment.conversion.quality import Quality
from launcher.deployment.export import memory_line, run
from launcher.deployment.folder import read_exported
from launcher.deployment.models import open_model
from launcher.deployment.prediction import predict
from launcher.deployment.prediction.served import serve
from launcher.deployment.timing.candidates import candidates_of
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


@pytest.fixture(scope="module")
def two_files(corpus, tmp_path_factory) -> Path:
    """An export whose weights are in a second file, as those of a model above 2 GB."""
    folder = tmp_path_factory.mktemp("two") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("kd.export.onnx_model.MOST_BYTES", 50_000)
        patch.setattr("kd.export.onnx_model.INLINE_BYTES", 1000)
        assert export(corpus.model, folder) == 0
    return folder


def test_a_model_beyond_the_size_of_a_file_has_two_and_gives_the_same_predictions(mlm, two_files, tmp_path, run_readme, capsys):
    record = read_exported(two_files).record
    assert {"model.onnx", "model.onnx.data"} <= set(record["files"])
    sizes = [(two_files / name).stat().st_size for name in ("model.onnx", "model.onnx.data")]
    assert record["bytes"] == pytest.approx(sum(sizes), abs=64 * 1024)
    assert run_readme(two_files) == run_readme(mlm)
    (tmp_path / "texts.txt").write_text("The [MASK] stands on a hill.\nA [MASK] and a [MASK].\n")
    printed = []
    for folder in (mlm, two_files):
        capsys.readouterr()
        assert predict.run(parser().parse_args(["predict", str(folder), str(tmp_path / "texts.txt")])) == 0
        printed.append(capsys.readouterr().out)
    assert printed[0] == printed[1]
    assert printed[0].count("fills") == 2
    candidates = candidates_of([str(two_files)])
    assert candidates[0].bytes == sum(sizes)
    candidates[0].session(1)


def test_int8_weights_below_the_size_of_a_file_are_one_file(corpus, tmp_path, monkeypatch):
    fp32 = export_graph(open_model(str(corpus.model)).exported).size
    monkeypatch.setattr("kd.export.onnx_model.MOST_BYTES", fp32 - 1)
    export(corpus.model, tmp_path / "out", "--precision", "int8", "--force")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.onnx*")) == ["model.onnx"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("missing", r"model\.onnx\.data: expected sha256 [0-9a-f]{12}… as exported, got no file; export the model again$"),
        ("one byte", r"model\.onnx\.data: expected sha256 [0-9a-f]{12}… as exported, got [0-9a-f]{12}; export the model again$"),
    ],
)
def test_a_changed_second_file_is_one_line(two_files, tmp_path, change, message):
    shutil.copytree(two_files, tmp_path / "out")
    data = tmp_path / "out" / "model.onnx.data"
    if change == "missing":
        data.unlink()
    else:
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    with pytest.raises(LaunchError, match=message):
        serve(str(tmp_path / "out"))


def test_the_memory_of_a_large_model_is_named_before_it_is_used(corpus, monkeypatch):
    encoder = open_model(str(corpus.model)).encoder
    assert memory_line(encoder) == ""
    monkeypatch.setattr("launcher.deployment.export.LARGE", 0)
    assert re.fullmatch(r"  about 0\.6 GB of memory at most, [0-9.]+ GB are free here", memory_line(encoder))
    monkeypatch.setattr("launcher.deployment.export.BASE_MEMORY", 1e15)
    assert memory_line(encoder).endswith("free here: expected more; close other programs, or export on a larger machine")


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


def test_numbers_have_no_equal_predictions_and_the_record_is_json(corpus, tmp_path, capsys):
    for split in ("train", "dev"):
        rows = [{"text": text[:100], "label": len(text) / 100} for text in corpus.texts[:40]]
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = AutoConfig.from_pretrained(corpus.model, num_hidden_layers=1)
    set_labels(config, "regression", [])
    with quiet_transformers():
        MODEL_CLASSES["regression"].from_config(config).save_pretrained(tmp_path / "model")
        AutoTokenizer.from_pretrained(corpus.model).save_pretrained(tmp_path / "model")
    data = f"{{kind: regression, train: {tmp_path}/train.jsonl, dev: {tmp_path}/dev.jsonl, max_length: 40}}"
    (tmp_path / "task.yaml").write_text(f"run: {{folder: x}}\ndata: {data}\ntrain: {{global_batch: 8, micro_batch: 8, epochs: 1}}\n")
    export(tmp_path / "model", tmp_path / "out", "--precision", "int8", "--task-config", tmp_path / "task.yaml", "--force")

    def no_number(name: str) -> None:
        raise AssertionError(f"{name} is no JSON")

    record = json.loads((tmp_path / "out" / "stillhouse.json").read_text(), parse_constant=no_number)
    assert record["quality"]["agreement"] is None
    assert record["quality"]["metric"] == "pearson"
    assert "nan" not in (tmp_path / "out" / "README.md").read_text()
    shown = capsys.readouterr()
    assert "largest difference of logits" in shown.out + shown.err
    assert "nan" not in shown.out + shown.err


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


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("task", "poetry", r'expected task as an export writes it, got "poetry"; export the model again'),
        ("max_tokens", "many", r'expected max_tokens as an export writes it, got "many"; export the model again'),
        ("labels", {}, r"expected labels as an export writes it, got {}; export the model again"),
        ("labels", ["a", "b"], r"expected \d+ labels, as many as the model has outputs, got 2; export the model again"),
        ("files", {}, r"expected the sha256 of model.onnx, got none; export the model again"),
    ],
)
def test_a_record_with_other_values_is_one_line(mlm, tmp_path, key, value, message):
    shutil.copytree(mlm, tmp_path / "out")
    record = tmp_path / "out" / "stillhouse.json"
    content = json.loads(record.read_text()) | {key: value}
    content.pop("record_sha256")  # as exports of earlier versions
    record.write_text(json.dumps(content))
    with pytest.raises(LaunchError, match=rf"stillhouse\.json: {message}$"):
        serve(str(tmp_path / "out"))
    record.write_text("[]")
    with pytest.raises(LaunchError, match=r"stillhouse\.json: expected the record of an export, got JSON of type list; export the model"):
        serve(str(tmp_path / "out"))


def test_a_byte_of_the_record_that_was_changed_is_found(mlm, tmp_path):
    shutil.copytree(mlm, tmp_path / "out")
    record = tmp_path / "out" / "stillhouse.json"
    text = record.read_text()
    assert serve(str(tmp_path / "out")).max_tokens == 48
    record.write_text(text.replace('"max_tokens": 48', '"max_tokens": 49'))
    with pytest.raises(LaunchError, match=r"stillhouse\.json: expected the record as it was written, got a changed one; export the model"):
        serve(str(tmp_path / "out"))


def test_an_unknown_family_is_one_line(corpus, tmp_path):
    shutil.copytree(corpus.model, tmp_path / "model")
    config = tmp_path / "model" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"]}))
    with pytest.raises(StillhouseError, match=r"model: expected a model of a known family \(bert, [^\n]*\), got 'gpt2'; use one of those$"):
        export(tmp_path / "model", tmp_path / "out")
    assert not (tmp_path / "out").exists()
