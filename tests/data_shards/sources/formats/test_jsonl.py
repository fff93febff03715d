"""JSON lines with what may stand beside the text."""

import json

import pytest

from data_shards.errors import DataError
from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import documents


@pytest.fixture
def read(tmp_path):
    """read(content): the texts of a file of JSON lines."""

    def call(content: str) -> list[str]:
        (tmp_path / "a.jsonl").write_text(content, encoding="utf-8")
        return [document.text for document in documents(SourceSettings(path=str(tmp_path)))]

    return call


@pytest.mark.parametrize("deep", ["[" * 100_000 + "]" * 100_000, '{"a":' * 100_000 + "1" + "}" * 100_000])
def test_json_that_is_nested_too_deep_is_one_line(read, deep):
    with pytest.raises(DataError, match=r"a\.jsonl:2: expected one JSON object a line, got one that is nested too deeply; repair the line"):
        read(f'{{"text": "fine"}}\n{{"text": "a", "tree": {deep}}}\n')


def test_a_number_without_end_is_one_line(read):
    with pytest.raises(DataError, match=r"a\.jsonl:1: expected one JSON object a line, got Exceeds the limit"):
        read(f'{{"text": "a", "n": {"9" * 5000}}}\n')


def test_a_key_that_stands_twice_is_named(read):
    with pytest.raises(DataError, match=r"a\.jsonl:1: expected one field text, got 2"):
        read('{"text": "alpha", "text": "beta"}\n')


def test_the_key_may_stand_in_the_text_and_in_inner_objects(read):
    rows = [{"text": 'the "text" key', "meta": {"text": "inner"}}, {"meta": [{"text": 1}], "text": "outer"}]
    assert read("".join(json.dumps(row) + "\n" for row in rows)) == ['the "text" key', "outer"]
