"""Each paper's preset: what its first line promises, its plan for the teacher it names, and some updates of it in small."""

import json
import math
from pathlib import Path

import pytest
from presets_in_small import UPDATES, settings
from transformers import BertConfig, BertForMaskedLM

from kd.models.config import quiet_transformers
from launcher.config.load import load_config
from launcher.config.yaml_file import PACKAGED
from launcher.errors import LaunchError
from launcher.planning.plan import make_plan

PAPERS = {
    "distilbert": "1910.01108",
    "fitnets": "1412.6550",
    "minilm": "2002.10957",
    "minilmv2": "2012.15828",
    "mobilebert": "2004.02984",
    "pkd": "1908.09355",
    "tinybert": "1909.10351",
}


@pytest.mark.parametrize("name", PAPERS)
def test_the_first_line_of_a_preset_names_its_paper(name):
    first = (PACKAGED / f"{name}.yaml").read_text().splitlines()[0]
    assert first.startswith("# ")
    assert f"arXiv:{PAPERS[name]}" in first


@pytest.mark.parametrize(
    ("name", "layers"), [("distilbert", 6), ("fitnets", 6), ("minilm", 6), ("minilmv2", 6), ("pkd", 6), ("tinybert", 4)]
)
def test_a_preset_can_be_planned_for_the_teacher_it_names(corpus, tmp_path, name, layers):
    """Layers, widths, heads, phases and schedules fit a teacher of BERT-base's shape; no weight is read."""
    assert planned(corpus, tmp_path, name).student_layers == layers
    config = load_config(name)
    assert config.teacher is not None
    assert config.teacher.model == "bert-base-uncased"


def test_mobilebert_trains_one_layer_after_the_other_and_then_all(corpus, tmp_path):
    plan = planned(corpus, tmp_path, "mobilebert")
    layer = 4 * (768 * 768 + 768) + 2 * 768 * 1024 + 1024 + 768 + 4 * 768
    assert [phase.trainable for phase in plan.phases] == [layer] * 12 + [plan.student_parameters]
    assert [phase.last for phase in plan.phases[:12]] == [20000 * number for number in range(1, 13)]
    assert plan.phases[12].last == 740_000


def planned(corpus, tmp_path: Path, name: str):
    teacher = tmp_path / "base"
    BertConfig(vocab_size=corpus.vocabulary, pad_token_id=0).save_pretrained(teacher)
    batch = ["train.global_batch=4", "train.micro_batch=4"]  # the corpus is small
    overrides = [f"data.shards={corpus.shards}", f"teacher.model={teacher}", f"run.folder={tmp_path / 'run'}", *batch]
    return make_plan(load_config(name, overrides), 1)


def test_a_scale_lies_over_the_file_and_below_the_command_line():
    made = load_config("fitnets", ["train.updates=50"], "demo")
    assert (made.train.updates, made.train.epochs, made.data.shards) == (50, None, "runs/demo/shards")
    assert made.run.folder == "runs/demo/fitnets"
    assert made.phases[0].trains == ["embeddings", "layers 0..1", "projections"]
    assert (made.optimizer.weight_decay, made.optimizer.learning_rate) == (0.01, 6e-4)
    assert load_config("fitnets").phases[0].trains == ["embeddings", "layers 0..2", "projections"]


def test_a_scale_that_is_not_there_and_scales_that_are_none_are_one_line(write_yaml):
    with pytest.raises(LaunchError, match=r"^--scale: expected demo, got dmo; correct it$"):
        load_config("fitnets", [], "dmo")
    with pytest.raises(LaunchError, match=r"mine.yaml: scales: expected settings for each scale by its name, got \[3\]; see configs/$"):
        load_config(write_yaml("scales: [3]"), [], "demo")


@pytest.fixture(scope="module")
def small_teacher(corpus, tmp_path_factory) -> Path:
    """A BERT of 6 layers of width 48 and 12 heads, as the demo's teacher in small."""
    folder = tmp_path_factory.mktemp("small-teacher")
    sizes = {"hidden_size": 48, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 96, "max_position_embeddings": 48}
    with quiet_transformers():
        BertForMaskedLM(BertConfig(vocab_size=corpus.vocabulary, pad_token_id=0, initializer_range=0.2, **sizes)).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("name", PAPERS)
def test_every_preset_can_be_planned_at_the_demos_scale(corpus, small_teacher, tmp_path, name):
    overrides = [*settings(name, str(corpus.shards), str(small_teacher)), f"run.folder={tmp_path}"]
    plan = make_plan(load_config(name, overrides, "demo"), 1)
    assert plan.student_layers == (6 if name == "mobilebert" else 3)


@pytest.mark.slow
def test_every_preset_learns_in_small(corpus, small_teacher, tmp_path, run_ranks):
    result = tmp_path / "result.json"
    run_ranks(1, "presets_in_small", result, corpus.shards, small_teacher, *PAPERS)
    report = json.loads(result.read_text())
    for name, seen in report.items():
        assert len(seen["losses"]) == UPDATES, name
        assert all(math.isfinite(loss) for loss in seen["losses"]), name
        assert seen["applied"], name
    for name in ("distilbert", "minilm", "minilmv2", "pkd", "tinybert"):
        assert min(report[name]["losses"][-2:]) < report[name]["losses"][0], f"{name}: {report[name]['losses']}"
    assert report["fitnets"]["phases"] == ["hints"] * 2 + ["soft targets"] * 6
    assert report["fitnets"]["terms"][0] == ["hints"]
    assert report["mobilebert"]["phases"] == [f"layer {number}" for number in range(6)] + ["all"] * 2
    assert report["mobilebert"]["losses"][0] > 0, "the narrower student is not its teacher"
    assert report["tinybert"]["student"] == [3, 24, 12]
