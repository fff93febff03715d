"""Broken configurations at the real door, `--dry-run`: one clear line, code 2, no weight read and nothing written."""

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import BertConfig, DebertaV2Config, MPNetConfig

from kd.models import loading
from launcher import run as door
from launcher.commands.common import Parser
from launcher.commands.train import add_train_arguments
from launcher.process.error_exit import guarded

SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 60}
STATES = "objective=[{kind: hidden_mse, layer_map: %s}]"
SMALLER = "student={width: 16, architecture: same}"


@pytest.fixture(scope="module")
def configs(tmp_path_factory: pytest.TempPathFactory, corpus) -> Path:
    """Folders of models that are nothing but a config.json: whoever reads weights fails."""
    folder = tmp_path_factory.mktemp("configs")
    sizes = SIZES | {"vocab_size": corpus.vocabulary, "pad_token_id": 0}
    for name, config in {
        "bert": BertConfig(**sizes),
        "longer": BertConfig(**sizes | {"num_hidden_layers": 6}),
        "of three heads": BertConfig(**sizes | {"hidden_size": 36, "num_attention_heads": 3}),
        "of other words": BertConfig(**sizes | {"vocab_size": 700}),
        "mpnet": MPNetConfig(**sizes),
        "deberta": DebertaV2Config(**sizes),
    }.items():
        config.save_pretrained(folder / name)
    return folder


@pytest.fixture
def refused(corpus, configs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_rank: None, capsys) -> Callable[..., str]:
    """refused(*settings, ranks=1): the line that the door says; MODELS in a setting is the folder of `configs`."""

    def say(*settings: str, ranks: int = 1) -> str:
        monkeypatch.setenv("WORLD_SIZE", str(ranks))
        monkeypatch.setattr(loading.AutoModelForMaskedLM, "from_pretrained", lambda *_, **__: pytest.fail("weights were read"))
        parser: argparse.ArgumentParser = Parser(prog="run")
        add_train_arguments(parser)
        folders = [f"run.folder={tmp_path / 'run'}", f"data.shards={corpus.shards}", f"teacher.model={configs / 'bert'}"]
        words = ["--config", "tiny", "--dry-run", *folders, *(word.replace("MODELS", str(configs)) for word in settings)]
        assert guarded(door.run, parser.parse_args(words)) == 2
        said = capsys.readouterr()
        (line,) = said.err.splitlines()
        assert said.out == ""
        assert list(tmp_path.iterdir()) == []
        return line.removeprefix("stillhouse: ").removeprefix("command line: ").removeprefix("configs/tiny.yaml: ")

    return say


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ("objective=[{kind: null}]", ", got null; correct it"),
        ("objective=[{kind: soft_target}]", "got soft_target; did you mean soft_targets?"),
        ("objective=[{kind: mlm, weight: .inf}]", "objective.0.weight: expected a finite number, got inf; correct it"),
        (
            "objective=[{kind: mlm, weight: {schedule: steps, values: [1, 0], at: [3]}}]",
            "objective: expected a weight above 0 in every update, got none in update 4; raise one",
        ),
        (
            "objective=[{kind: mlm, weight: {schedule: linear, from: 1, to: 2, start: 0.8, end: 3}}]",
            "objective.0.weight: expected a schedule that ends after it starts, within 12 updates, got 10 to 3; correct it",
        ),
        (STATES % "[{student: 0, teacher: []}]", "objective.0.layer_map.0.teacher: expected at least 1 item, got 0; correct it"),
        (STATES % "[{student: 0}]", "objective.0.layer_map.0.teacher: expected a value, got none; add it"),
        (STATES % "[{student: 0.5, teacher: 1}]", "objective.0.layer_map.0.student: expected a whole number, got 0.5; correct it"),
        (STATES % "[{student: 9, teacher: 1}]", "expected student layers from 0 to 1 (or -2 to -1, from the end), got 9; correct the pair"),
        ("student.layers=[true]", "student.layers.0: expected a whole number, got true; correct it"),
        ("objective=[{kind: relations, relations: [qz]}]", "'vk', got 'qz'; correct it"),
        (
            "objective=[{kind: relations, relations: [qq, kk, qq]}]",
            "objective.0.relations: expected each relation once, got qq, kk, qq; drop what stands twice, or raise weight",
        ),
        (
            "objective=[{kind: similarity, group_rows: 3}]",
            "objective.0.group_rows: expected a number that divides train.micro_batch = 2, got 3; change either",
        ),
        ("teacher.mode=cached", "teacher.cache: expected a folder for mode: cached, got none; name one, and fill it: stillhouse cache"),
    ],
)
def test_a_setting_that_cannot_be_is_one_line(refused, settings: str, line: str):
    assert refused(settings).endswith(line)


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            ["data.packing=documents", "objective=[{kind: rkd_angle}]"],
            "train.micro_batch: expected at least 3 for rkd_angle with one document a row, got 2; raise it",
        ),
        (
            ["data.packing=documents", "objective=[{kind: mlm}, {kind: similarity, group_rows: 1}]"],
            "objective.1.group_rows: expected at least 2 for similarity with one document a row, got 1; raise it",
        ),
        (
            [STATES % "cka", "student={init: MODELS/longer}"],
            "layer_map: expected a student of at most 4 layers, the teacher's, for cka, got 6; name pairs",
        ),
        (
            ["objective=[{kind: attention_kl}]", "student={init: MODELS/of three heads}"],
            "objective.0 (attention_kl): expected a student of the teacher's 4 attention heads, got 3; use relations, whose "
            "number of heads is free",
        ),
        (
            [STATES % "uniform", SMALLER],
            "objective.0 (hidden_mse): expected a student of the teacher's width 32, got 16; add projection: shared",
        ),
        (
            ["teacher=[{model: MODELS/bert}, {model: MODELS/of other words}]", "objective=[{kind: soft_targets}]"],
            "teacher.1: expected a vocabulary of 88, the shards', got 700; build shards with the teacher.1's own tokenizer",
        ),
        (
            ["phases=[{name: a, trains: [projections]}]"],
            "phases.0.trains: expected something that trains in phase a, got nothing; name another part",
        ),
        (
            ["teacher.model=MODELS/deberta", "student.architecture=same", "train.activation_checkpointing=true", "train.zero_stage=3"],
            "train.activation_checkpointing: expected train.zero_stage below 3 for deberta-v2, got 3; change either",
        ),
    ],
)
def test_models_and_settings_that_do_not_fit_are_one_line(refused, settings: list[str], line: str):
    assert refused(*settings) == line


def test_a_teacher_that_cannot_be_split_as_asked_is_one_line(refused):
    split = ("teacher.mode=tensor_parallel", "train.global_batch=12")
    assert "expected a family whose heads tensor_parallel can split, got mpnet" in refused("teacher.model=MODELS/mpnet", *split, ranks=2)
    assert "expected ranks that divide the teacher's num_attention_heads for tensor_parallel, got 3 ranks and 4" in refused(*split, ranks=3)
