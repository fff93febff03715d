"""The journal: replaced whole, read strictly."""

import pytest

from data_shards.build.journal import Journal, SplitProgress
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
