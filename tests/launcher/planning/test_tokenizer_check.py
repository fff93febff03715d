"""Teachers of another tokenizer than the shards' are refused by the first token that differs."""

import json
import shutil
from pathlib import Path

import pytest

from data_shards.stream.settings import StreamSettings
from launcher.errors import LaunchError
from launcher.evaluation.evaluate import score
from launcher.planning.plan import make_plan
from launcher.planning.table import rows


@pytest.fixture
def second(corpus, tmp_path: Path):
    """second(change=None): another folder of the teacher, its tokenizer.json changed."""

    def make(change=None) -> Path:
        folder = tmp_path / "second"
        shutil.copytree(corpus.model, folder)
        if change is not None:
            path = folder / "tokenizer.json"
            path.write_text(json.dumps(change(json.loads(path.read_text()))))
        return folder

    return make


def swapped(tokenizer):
    """The same tokens, two of them with each other's ids."""
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["the"], vocabulary["."] = vocabulary["."], vocabulary["the"]
    return tokenizer


def planned(make_config, corpus, folder: Path, *overrides: str):
    models = f"[{{model: {corpus.model}, weight: 3}}, {{model: {folder}, mode: zero3, precision: bf16}}]"
    return make_plan(make_config(f"teacher={models}", "objective.2.teacher=1", *overrides), 2)


def test_several_teachers_of_one_tokenizer_stand_in_the_plan(make_config, corpus, second):
    plan = planned(make_config, corpus, second())
    assert [teacher.mode for teacher in plan.teachers] == ["replicated", "zero3"]
    assert plan.teachers[0].bytes == 2 * plan.teachers[1].bytes
    assert "teacher 1" in dict(rows(plan))
    # logits of three models; tiles of them, three of the mixture, and eight of soft targets and mlm
    assert plan.logits_bytes == (64 * (4 + 4 + 2) + 4 * 64 * (3 + 3 + 8)) * corpus.vocabulary


def test_the_first_token_that_differs_is_named(make_config, corpus, second):
    folder = second(swapped)
    point = json.loads((corpus.model / "tokenizer.json").read_text())["model"]["vocab"]["."]
    with pytest.raises(LaunchError) as refused:
        planned(make_config, corpus, folder)
    assert str(refused.value) == (
        f"teacher.1: expected the shards' tokenizer, got another in {folder}: "
        f"id {point} is 'the' there and '.' in the shards; use teachers of one tokenizer"
    )


def test_a_tokenizer_that_lacks_a_token_is_refused(make_config, corpus, second):
    def shorter(tokenizer):
        tokenizer["model"]["vocab"].pop(max(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get))
        return tokenizer

    with pytest.raises(LaunchError, match=f"id {corpus.vocabulary - 1} is nothing there and '"):
        planned(make_config, corpus, second(shorter))


def test_another_special_token_is_refused(make_config, corpus, second):
    folder = second()
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"sep_token": "[CLS]"}))
    with pytest.raises(LaunchError, match="sep_id is 2 there and 3 in the shards"):
        planned(make_config, corpus, folder)


def test_a_teacher_without_a_tokenizer_is_refused(make_config, corpus, second):
    folder = second()
    for file in folder.glob("tokenizer*"):
        file.unlink()
    with pytest.raises(
        LaunchError,
        match=r"expected a model with its tokenizer.*got none \(tokenizer .*: expected tokenizer.json, vocab.txt or another tokenizer file",
    ):
        planned(make_config, corpus, folder)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["teacher=x"], "teacher"),
        (["objective.2.teacher=2"], "objective.2.teacher: expected a teacher from 0 to 1, got 2; correct it"),
        (["objective.2.teacher=null"], "objective.2.teacher: expected one of 0 to 1 for cosine, which several cannot teach together"),
        (["teacher_mixing=random"], "objective.2.teacher: expected none with teacher_mixing: random, where one teaches everything, got 1"),
        (["teacher=[]"], "teacher: expected at least 1 item, got 0"),
        (["teacher.0.weight=0"], "teacher.0.weight: expected greater than 0, got 0"),
        (["teacher.model=x"], "teacher.model: expected a number from 0 to 1, got model; correct the key"),
        (["teachers={models: [{model: x}]}"], "teachers: expected either teacher or teachers, got both; keep teacher, which takes a list"),
    ],
)
def test_teachers_that_cannot_be_are_one_line(make_config, corpus, second, overrides, message):
    with pytest.raises(LaunchError) as refused:
        planned(make_config, corpus, second(), *overrides)
    assert message in str(refused.value)


def test_one_teacher_of_another_vocabulary_of_the_same_size_is_refused_and_one_without_a_tokenizer_is_taken(make_config, corpus, second):
    folder = second(swapped)
    told = r"in the shards; build shards with the model's own tokenizer, or name another model"
    with pytest.raises(LaunchError, match=rf"teacher: expected the shards' tokenizer, got another in {folder}: .* {told}"):
        make_plan(make_config(f"teacher.model={folder}"), 1)
    with pytest.raises(LaunchError, match=rf"student.init: expected the shards' tokenizer, got another in {folder}: .* {told}"):
        make_plan(make_config(f"student.init={folder}"), 1)
    with pytest.raises(LaunchError, match=rf"{folder}: expected the shards' tokenizer, got another in {folder}"):
        score([str(folder)], str(corpus.shards), None, StreamSettings(window_tokens=32))
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(LaunchError, match="teacher: expected a model with its tokenizer, so that it can be compared, got none"):
        make_plan(make_config(f"teacher.model={folder}"), 1)
    for file in folder.glob("tokenizer*"):
        file.unlink()
    make_plan(make_config(f"teacher.model={folder}"), 1)
