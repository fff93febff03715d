"""Settings of a task's data: mistakes are told before a file is opened."""

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from data_shards.tasks.settings import Columns, TaskDataSettings, hub_parts, label_text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "glue/sst"}, "did you mean glue/sst2"),
        ({"kind": "classification"}, "expected train, dev, test or unlabelled"),
        ({"kind": "classification", "train": "hub:glue"}, "add the split"),
        ({"kind": "classification", "train": "a.csv", "labels": ["a", "a"]}, "each label once, got a twice"),
        ({"kind": "classification", "train": "a.csv", "labels": ["a"], "label_names": {"0": "b"}}, "add them to labels"),
        ({"kind": "classification", "train": "a.csv", "labels": [False, True]}, "put yes, no, true and false into quotes"),
        ({"kind": "classification", "train": "a.csv", "dev": ["b.csv", "a.csv"]}, "train and dev: expected different files, got a.csv"),
        ({"kind": "regression", "train": "a.csv", "labels": ["a"]}, "expected none for regression"),
        ({"kind": "question_answering", "train": "a.json", "max_length": 128}, "raise max_length or lower the others"),
    ],
)
def test_mistakes_are_told(settings, message):
    with pytest.raises(ValidationError, match=message):
        TaskDataSettings(**settings)


def test_numbers_as_keys_of_label_names_are_those_of_yaml():
    settings = TaskDataSettings(kind="classification", train="a.csv", label_names={0: "no", True: "yes"})
    assert settings.label_names == {"0": "no", "true": "yes"}
    assert TaskDataSettings(kind="classification", train="a.csv", labels=[0, 1]).labels == ["0", "1"]


@pytest.mark.parametrize(("value", "text"), [(1, "1"), (1.0, "1"), ("1 ", "1"), (True, "true"), (0.5, "0.5"), ("1.0", "1.0")])
def test_a_label_is_the_same_text_from_every_format(value, text):
    assert label_text(value) == text


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("hub:nyu-mll/glue/sst2:train", ("nyu-mll/glue", "sst2", "train")),
        ("hub:stanfordnlp/imdb:train[:10%]", ("stanfordnlp/imdb", None, "train[:10%]")),
        ("hub:imdb:test", ("imdb", None, "test")),
        ("hub:/data/saved/one:dev", ("/data/saved/one", None, "dev")),
    ],
)
def test_a_hub_path_has_a_name_a_configuration_and_a_split(path, parts):
    assert hub_parts(path) == parts


def test_every_setting_is_in_the_documentation():
    text = (Path(__file__).parents[3] / "docs/tasks-data.md").read_text()
    table = text[text.index("## Settings") : text.index("## What is checked")]
    names = set(
        re.findall(r"`(?:columns)?\.?([a-z_]+)`", "".join(line.split("|")[1] for line in table.splitlines() if line.startswith("|")))
    )
    fields = set(TaskDataSettings.model_fields) - {"columns"} | set(Columns.model_fields)
    assert names == fields


@pytest.mark.parametrize(
    "settings",
    [
        {"preset": "glue/qnli", "dev": "mine.tsv", "folder": "official"},
        {"preset": "imdb", "train": "mine.jsonl"},
        {"preset": "imdb", "unlabelled": "more.txt"},
        {"preset": "squad_v2", "folder": "squad", "max_rows": 5},
        {"kind": "question_answering", "train": "a.json"},
    ],
)
def test_settings_that_were_written_are_read_the_same(settings):
    first = TaskDataSettings(**settings)
    assert TaskDataSettings(**first.model_dump(mode="json")) == first
