"""A document has a largest size, and a larger one is one line."""

import gzip

import pytest

from data_shards.errors import DataError
from data_shards.sources import text_formats
from data_shards.sources.sources import SourceCounts, SourceSettings, documents


@pytest.mark.parametrize(
    ("name", "per", "where"),
    [
        ("a.txt", "line", r"a\.txt:2: "),
        ("a.txt.gz", "paragraph", ":2: "),
        ("a.jsonl", "line", ":2: "),
        ("a.csv", "line", ":2: "),
        ("a.txt", "file", r"a\.txt: "),
    ],
)
def test_a_line_or_file_above_the_largest_size_is_one_line_that_says_so(tmp_path, monkeypatch, name, per, where):
    monkeypatch.setattr(text_formats, "MOST_BYTES", 50)
    path, first = tmp_path / name, b'{"text": "a"}\n' if name == "a.jsonl" else b"text\n"
    with (gzip.open if name.endswith("gz") else open)(path, "wb") as file:
        file.write(first + b"a" * 51 + b"\n")
    with pytest.raises(
        DataError, match=f"{where}expected a (line|document) of at most 50 bytes, got a (longer one|larger file); "
    ) as error:
        list(documents(SourceSettings(path=str(path), per=per), SourceCounts()))
    assert "\n" not in str(error.value)


def test_a_line_of_the_largest_size_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(text_formats, "MOST_BYTES", 50)
    (tmp_path / "a.txt").write_bytes(b"a" * 49 + b"\n" + b"b" * 50)
    texts = [document.text for document in documents(SourceSettings(path=str(tmp_path / "a.txt")), SourceCounts())]
    assert texts == ["a" * 49, "b" * 50]


def test_the_largest_size_is_below_300_million_bytes():
    assert text_formats.MOST_BYTES == 134_217_728
