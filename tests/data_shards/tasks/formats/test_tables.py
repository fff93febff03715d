"""Rows of `datasets`: names of classes, and rows without a label."""

import datasets
import pytest

from data_shards.errors import DataError


@pytest.fixture
def saved(tmp_path) -> str:
    """A folder that `datasets` has saved, with the features that hub data sets have."""
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"]), "idx": datasets.Value("int32")}
    )
    splits = {"train": [0, 1, 1], "test": [-1, -1]}
    rows = {
        name: datasets.Dataset.from_dict(
            {"text": [f"{name} {n}" for n in range(len(labels))], "label": labels, "idx": list(range(len(labels)))}, features=features
        )
        for name, labels in splits.items()
    }
    datasets.DatasetDict(rows).save_to_disk(str(tmp_path / "saved"))
    return str(tmp_path / "saved")


def test_classes_are_named_and_minus_one_is_no_label(read, saved):
    names = {"neg": "negative", "pos": "positive"}
    data = read(
        kind="classification",
        train=f"hub:{saved}:train",
        test=f"hub:{saved}:test",
        labels=["negative", "positive"],
        label_names=names,
    )
    assert data.splits["train"].labels == ["negative", "positive", "positive"]
    assert data.splits["train"].places[1] == f"hub:{saved}:train:1"
    assert data.splits["test"].labels is None


def test_lists_of_classes_are_named(read, tmp_path):
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-LOC"]))
    features = datasets.Features({"tokens": datasets.List(datasets.Value("string")), "ner_tags": tags})
    rows = datasets.Dataset.from_dict({"tokens": [["in", "York"]], "ner_tags": [[0, 1]]}, features=features)
    rows.save_to_disk(str(tmp_path / "tags"))
    assert read(kind="tagging", train=f"hub:{tmp_path}/tags:train").splits["train"].labels == [["O", "B-LOC"]]


def test_a_missing_split_or_column_is_one_line(read, saved):
    with pytest.raises(DataError, match=r"dataset .*saved: expected a dataset with split dev"):
        read(kind="classification", train=f"hub:{saved}:dev")
    with pytest.raises(DataError, match="expected a column sentence, got columns text, label, idx"):
        read(kind="classification", train=f"hub:{saved}:train", columns={"text": "sentence"})
