"""The folder of a build: other settings are named to the leaf, a second build is refused."""

from pathlib import Path

import pytest
from filelock import FileLock

from data_shards.build.folder import locked, refuse_other_settings
from data_shards.errors import DataError


def test_nested_differences_are_named_to_the_leaf():
    before = {"seed": 1, "sources": [{"path": "a", "column": "text"}]}
    refuse_other_settings(Path("out"), before, {"seed": 1, "sources": ({"path": "a", "column": "text"},)}, "shards")
    with pytest.raises(
        DataError, match=r"out: expected shards with the same settings, got sources\.0\.path 'a' -> 'b'; choose another folder"
    ):
        refuse_other_settings(Path("out"), before, {"seed": 1, "sources": [{"path": "b", "column": "text"}]}, "shards")


def test_a_second_process_is_refused(tmp_path):
    lock = tmp_path / "out" / ".3.lock"
    with (
        locked(tmp_path / "out", lock),
        pytest.raises(DataError, match=r"out: expected no other build at work, got one that holds \.3\.lock"),
    ):
        with locked(tmp_path / "out", lock):
            pytest.fail("two builds hold the lock")
    assert not FileLock(lock).is_locked
