"""csv with quotes after a backslash, and quotes that are never closed."""

import pytest

from data_shards.errors import DataError
from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import documents


@pytest.fixture
def read(tmp_path):
    """read(content, **settings): the texts of a csv file with this content."""

    def call(content: str, **settings) -> list[str]:
        (tmp_path / "a.csv").write_bytes(content.encode())
        return [document.text for document in documents(SourceSettings(path=str(tmp_path), **settings))]

    return call


def test_backslash_quoting_frees_quotes_and_keeps_other_backslashes(read):
    content = 'n,text\n1,"say \\"hi\\", now"\n2,"C:\\new\\dir"\n3,"ends in \\\\"\n'
    assert read(content, quoting="backslash") == ['say "hi", now', r"C:\new\dir", "ends in \\"]


def test_a_quote_that_swallows_a_large_file_stops_before_memory_does(read, monkeypatch):
    monkeypatch.setattr("data_shards.sources.formats.csv.MAX_FIELD_CHARACTERS", 1000)
    with pytest.raises(DataError, match=r"a\.csv:2: expected CSV, got a quote that is not closed, or a field too long"):
        read('text\n"alpha\n' + "beta\n" * 1000)


@pytest.mark.parametrize("tab", ["tab", "\\t", "\t"])
def test_a_tab_can_be_written_in_several_ways(read, tab):
    assert read("n\ttext\n1\talpha, beta\n", separator=tab) == ["alpha, beta"]
