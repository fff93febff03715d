"""The journal: replaced whole, read strictly; differences of settings named to the leaf."""

from pathlib import Path

import pytest

from data_shards.build.journal import Journal, SplitProgress, refuse_other_settings
from data_shards.errors import DataError
from data_shards.storage.manifest import JOURNAL


def test_a_journal_is_read_back(tmp_path):
    assert Journal.load(tmp_path) is None
    journal = Journal(settings={"a": 1}, tokenizer_fingerprint="f", splits={"train": SplitProgress(consumed=5, digest="d")})
    journal.save(tmp_path)
    assert Journal.load(tmp_path) == journal


def test_a_broken_journal_is_one_line(tmp_path):
    (tmp_path / JOURNAL).write_text('{"settings": ')
    with pytest.raises(DataError, match=r"\.journal\.json: expected a build's journal, got") as error:
        Journal.load(tmp_path)
    assert "\n" not in str(error.value)


def test_nested_differences_are_named_to_the_leaf():
    before = {"seed": 1, "sources": [{"path": "a", "column": "text"}]}
    refuse_other_settings(Path("out"), before, {"seed": 1, "sources": ({"path": "a", "column": "text"},)}, "shards")
    with pytest.raises(
        DataError, match=r"out: expected shards with the same settings, got sources\.0\.path 'a' -> 'b'; choose another folder"
    ):
        refuse_other_settings(Path("out"), before, {"seed": 1, "sources": [{"path": "b", "column": "text"}]}, "shards")
