"""Keys of earlier versions are read as the present ones, with one line that names those."""

from pathlib import Path

import pytest
import yaml

from launcher.config.load import config_of, load_config, parse_config, public_values
from launcher.config.run_config import RunConfig
from launcher.errors import LaunchError

MODELS = [{"model": "models/a", "weight": 2.0, "mode": "zero3"}, {"model": "models/b"}]
TERMS = [{"kind": "soft_targets"}, {"kind": "cosine", "teacher": 1}]


def written(folder: Path, **changes: object) -> str:
    values = public_values(load_config("tiny")) | {"objective": TERMS} | changes
    path = folder / "run.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in values.items() if value is not None}))
    return str(path)


@pytest.fixture
def present(tmp_path: Path) -> RunConfig:
    return load_config(written(tmp_path, teacher=MODELS, teacher_mixing="mean"))


def test_a_file_that_says_teachers_is_the_same_run_and_says_so_in_one_line(tmp_path, present, capsys):
    assert capsys.readouterr().err == ""
    assert load_config(written(tmp_path, teacher=None, teachers={"combine": "mean", "models": MODELS}, teacher_mixing=None)) == present
    line = "stillhouse: teachers: is now teacher, which takes one teacher or a list, with teacher_mixing; it is read, please rename it\n"
    assert capsys.readouterr().err == line


def test_ranks_above_0_do_not_repeat_the_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    load_config(written(tmp_path, teacher=None, teachers={"models": MODELS}))
    assert capsys.readouterr().err == ""


def test_words_of_the_command_line_mean_the_present_keys(tmp_path, present, capsys):
    old = load_config(
        written(tmp_path, teacher=None, teachers={"models": MODELS}), ["teachers.models.1.weight=3", "teachers.models.1.weight=1"]
    )
    assert old == present
    assert "stillhouse: teachers.models.1.weight: is now teacher.1.weight; it is read, please rename it\n" in capsys.readouterr().err
    random = load_config(written(tmp_path, teacher=MODELS, objective=TERMS[:1]), ["teachers.combine=random"])
    assert random.teacher_mixing == "random"


def test_the_configuration_of_an_earlier_checkpoint_is_the_same_run(present, tmp_path):
    values = public_values(present)
    del values["teacher_mixing"]
    values |= {"teacher": None, "teachers": {"combine": "mean", "models": values["teacher"]}}
    assert config_of(values, "checkpoint") == present
    assert "teachers" in values, "the checkpoint's own copy is not changed"
    assert parse_config(yaml.safe_dump(values), "config.yaml") == present
    one = public_values(load_config("tiny"))
    assert config_of({key: value for key, value in one.items() if key != "teacher_mixing"} | {"teachers": None}, "x") == load_config("tiny")


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"teachers": {"models": MODELS}}, "teachers: expected either teacher or teachers, got both; keep teacher, which takes a list"),
        ({"teacher": None, "teachers": MODELS}, "teachers: expected models and combine, got other settings"),
        ({"teacher": [{"model": "x", "wieght": 2}]}, "teacher.0.wieght: unknown key; did you mean weight?"),
        ({"teacher": [{"mode": "zero3"}]}, "teacher.0.model: expected a value, got none; add it"),
        (
            {"teacher": {"model": "x", "mode": "zero4"}},
            "teacher.mode: expected 'replicated', 'zero3', 'tensor_parallel' or 'cached', got 'zero4'",
        ),
    ],
)
def test_what_cannot_be_is_one_line(tmp_path, changes, line):
    with pytest.raises(LaunchError) as refused:
        load_config(written(tmp_path, **changes))
    assert line in str(refused.value)
    assert "\n" not in str(refused.value)
