"""Precisions of `stillhouse export`: options that have no effect, calibration texts, parts, and what the record says."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from kd.export.quantise.scheme import Scheme
from kd.export.runtime import TorchSession
from kd.models.encoder import Encoder
from launcher.commands.parser import parser
from launcher.deployment.conversion.data import ExportData
from launcher.deployment.conversion.graph import Graph
from launcher.deployment.conversion.options import check_options
from launcher.deployment.conversion.parts import parts_of, weights_of
from launcher.deployment.conversion.quality import ShardsComparison, part_of
from launcher.deployment.conversion.search import search
from launcher.deployment.export import run
from launcher.deployment.folder import read_exported
from launcher.deployment.models import open_model
from launcher.errors import LaunchError
from tests.kd.conftest import MODELS

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
FORCED = ("--force", "--max-drop", 100)


def export(model, out, *words):
    return run(parser().parse_args(["export", str(model), "--out", str(out), *map(str, words)]))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precision", "bf16"], "--precision: expected fp32, int8, int8-static, int4 or auto for onnx, got bf16; or set --format safet"),
        (
            ["--precision", "int4", "--format", "safetensors"],
            "--precision: expected bf16 or fp32 for safetensors, got int4; or set --format",
        ),
        (["--tables", "int4"], "--tables: expected an option of --precision fp32, got one that it does not read; leave it out"),
        (["--precision", "int8", "--block", "128"], "--block: expected an option of --precision int8, got"),
        (["--precision", "int4", "--activations", "token"], "--activations: expected an option of --precision int4, got"),
        (["--precision", "int8", "--calibration-rows", "64"], "--calibration-rows: expected an option of --precision int8, got"),
        (["--keep-fp32", "head"], "--keep-fp32: expected an option of --precision fp32, got"),
    ],
)
def test_an_option_without_effect_is_one_line(words, message):
    with pytest.raises(LaunchError) as raised:
        check_options(parser().parse_args(["export", "m", "--out", "o", *words]))
    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


def test_static_scales_are_calibrated_on_the_train_split(classifier_task, tmp_path, run_readme):
    model, config = classifier_task
    export(model, tmp_path / "out", "--precision", "int8-static", "--task-config", config, "--calibration-rows", 40, *FORCED)
    record = read_exported(tmp_path / "out").record
    assert record["calibration_rows"] == 40
    assert record["activations"] == "int8, scales from calibration"
    assert record["quality"]["rows"] == 60
    assert "fixed scales" in (tmp_path / "out" / "README.md").read_text()
    assert run_readme(tmp_path / "out") in ("long", "short")


def test_static_scales_of_a_masked_language_model_are_calibrated_on_the_train_part(corpus, tmp_path):
    words = ("--precision", "int8-static", "--shards", corpus.shards, "--windows", 32, *FORCED)
    export(corpus.model, tmp_path / "out", *words)
    record = read_exported(tmp_path / "out").record
    assert record["calibration_rows"] >= 32
    assert record["quality"]["metric"] == "top1"


def test_static_scales_without_texts_are_one_line_even_when_forced(corpus, tmp_path):
    with pytest.raises(
        LaunchError, match=r"^int8-static: expected --task-config or --shards with texts to calibrate on, got neither; give one$"
    ):
        export(corpus.model, tmp_path / "out", "--precision", "int8-static", "--force")
    assert list(tmp_path.iterdir()) == []


def test_too_few_texts_to_calibrate_on_are_one_line(classifier_task, tmp_path):
    model, config = classifier_task
    rows = (config.parent / "train.jsonl").read_text().splitlines(keepends=True)[:20]
    (tmp_path / "few.jsonl").write_text("".join(rows))
    words = ("--precision", "int8-static", "--task-config", config, "--set", f"data.train={tmp_path / 'few.jsonl'}", "--force")
    with pytest.raises(LaunchError, match=r"task.yaml: train: expected at least 32 rows to calibrate on, got 20; add texts, or take"):
        export(model, tmp_path / "out", *words)
    assert not (tmp_path / "out").exists()


def test_four_bits_are_named_in_the_record(corpus, tmp_path, run_readme):
    export(corpus.model, tmp_path / "out", "--precision", "int4", "--tables", "int4", "--block", 128, "--force")
    record = read_exported(tmp_path / "out").record
    parts = record["precision_by_part"]
    assert parts["bert.embeddings.word_embeddings.weight"] == "int4, a scale for 128 weights"
    assert parts["bert.encoder.layer.0.output.dense.weight"] == "int4, a scale for 128 weights"
    assert json.loads((tmp_path / "out" / "stillhouse.json").read_text())["precision"] == "int4"
    assert run_readme(tmp_path / "out")


@pytest.mark.parametrize("family", sorted(MODELS))
def test_the_parts_of_a_family_are_all_its_weights_once(family):
    encoder = Encoder(MODELS[family](layers=2))
    parts = parts_of(encoder)
    names = [name for weights in parts.values() for name in weights]
    assert sorted(names) == sorted(name for name, _ in encoder.hf.named_parameters())
    table = encoder.weight(encoder.family.word_embeddings)
    assert any(encoder.hf.get_parameter(name) is table for name in parts["embeddings"])
    up = encoder.family.layer.feed_forward_up
    assert any(name.endswith(f"{up}.weight") for name in parts["layers.0.feed_forward"])
    assert not any(name.endswith(f"{up}.weight") for name in parts["layers.0.attention"])
    layer = weights_of(encoder, "layers.0")
    assert layer == parts["layers.0.attention"] | parts["layers.0.feed_forward"]


def test_a_kept_half_of_a_layer_stays_in_fp32(corpus, tmp_path: Path):
    export(corpus.model, tmp_path / "out", "--precision", "int8", "--force", "--keep-fp32", "layers.0.feed_forward", "head")
    parts = read_exported(tmp_path / "out").record["precision_by_part"]
    assert parts["bert.encoder.layer.0.output.dense.weight"] == "fp32"
    assert parts["bert.encoder.layer.0.attention.output.dense.weight"] == "int8, a scale per output"
    assert parts["cls.predictions.transform.dense.weight"] == "fp32"


class LogitComparison:
    """Loses as many points as the logits of random rows differ, so that the loss never is 0."""

    def __init__(self, model):
        self.model, self.original = model, TorchSession(model.exported)

    def error(self, exported):
        arrays = [value.numpy() for value in self.model.exported.example(8, 30)]
        before, after = (session.run(arrays)[0] for session in (self.original, exported))
        return float(np.square(before - after).sum() / np.square(before).sum())

    def quality(self, exported, part):
        assert part == "choice"
        return SimpleNamespace(drop=100 * self.error(exported), data="8 of 16 rows")


def test_auto_keeps_the_parts_with_most_error_for_each_byte_until_the_loss_is_within_the_limit(classifier_task, capsys):
    model = open_model(str(classifier_task[0]))
    graph, comparison, scheme = Graph(model, 20), LogitComparison(model), Scheme("int4", "int4")
    all_quantised = comparison.quality(graph.at(scheme)[1], "choice").drop
    found = search(graph, scheme, comparison, frozenset(), all_quantised / 3)
    assert found.drop_of_all == pytest.approx(all_quantised)
    assert {part.part for part in found.parts} >= {"embeddings", "layers.0.attention", "layers.1.feed_forward"}
    shares = [part.error / part.bytes for part in found.parts]
    assert shares == sorted(shares, reverse=True)
    drops = [part.drop for part in found.parts if part.drop is not None]
    assert all(drop > all_quantised / 3 for drop in drops[:-1])
    assert drops[-1] <= all_quantised / 3
    assert comparison.quality(found.session, "choice").drop == pytest.approx(drops[-1])
    kept = [part.part for part in found.parts if part.drop is not None]
    assert 0 < len(kept) < len(found.parts)
    for part in kept:
        assert all(found.precisions.get(name, "fp32") == "fp32" for name in weights_of(model.encoder, part))
    assert kept[0] in capsys.readouterr().out
    assert found.record["parts"][0]["part"] == kept[0]


def test_auto_keeps_nothing_where_the_loss_is_within_the_limit(classifier_task, tmp_path):
    model, config = classifier_task
    export(model, tmp_path / "out", "--precision", "auto", "--task-config", config, *FORCED)
    record = read_exported(tmp_path / "out").record
    assert record["search"]["parts"] == []
    assert record["search"]["chosen_on"] == "30 of 60 rows of dev"
    assert record["quality"]["data"] == "30 of 60 rows of dev; the others chose the parts in fp32"
    assert record["quality"]["rows"] == 30


def test_the_loss_that_auto_reports_is_that_of_rows_that_chose_nothing(classifier_task):
    model, config = classifier_task
    arguments = parser().parse_args(["export", str(model), "--out", "o", "--task-config", str(config)])
    opened = open_model(str(model))
    comparison = ExportData(arguments).comparison(opened, TorchSession(opened.exported))
    session = Graph(opened, 20).at(Scheme("int4", "int4"))[1]
    choice, report, whole = (comparison.quality(session, part) for part in ("choice", "report", "all"))
    assert (choice.rows, report.rows, whole.rows) == (30, 30, 60)
    assert whole.original == pytest.approx((choice.original + report.original) / 2)
    assert whole.exported == pytest.approx((choice.exported + report.exported) / 2)
    halves = [set(part_of(61, part).tolist()) for part in ("choice", "report")]
    assert (len(halves[0]), len(halves[1])) == (30, 31)
    assert halves[0] | halves[1] == set(range(61))


def test_auto_on_shards_chooses_on_every_other_document(corpus):
    model = open_model(str(corpus.model))
    comparison = ShardsComparison(model, TorchSession(model.exported), str(corpus.shards), 32)
    session = Graph(model, 20).session
    parts = [comparison.quality(session, part) for part in ("choice", "report", "all")]
    assert parts[0].rows + parts[1].rows == parts[2].rows
    assert min(parts[0].rows, parts[1].rows) > 0
    assert parts[1].data.startswith(f"{parts[1].rows} of {parts[2].rows} masked tokens of held-out documents; the others chose")
    assert comparison.error(session) < 1e-6


def test_too_few_rows_for_two_halves_are_one_line():
    with pytest.raises(LaunchError, match=r"^auto: expected at least 40 rows, half to choose on and half to report on, got 39; use more"):
        part_of(39, "report")


def test_auto_without_data_is_one_line(corpus, tmp_path):
    with pytest.raises(LaunchError, match=r"^auto: expected --task-config or --shards to measure the loss on, got neither; give one$"):
        export(corpus.model, tmp_path / "out", "--precision", "auto", "--force")
