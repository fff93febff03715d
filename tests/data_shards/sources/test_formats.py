"""Text as other programs write it: read whole, or refused by file and line. Nothing is cut or swallowed."""

import codecs

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_shards.errors import DataError
from data_shards.sources.formats import BY_KIND, FORMATS, KIND_OF_ENDING, common
from data_shards.sources.settings import KINDS, SourceSettings
from data_shards.sources.sources import documents


def texts(path, content: bytes | None = None, **settings) -> list[str]:
    if content is not None:
        path.write_bytes(content)
    return [document.text for document in documents(SourceSettings(path=str(path), **settings))]


def test_kinds_and_endings_are_those_of_the_formats():
    assert ("auto", *(one.kind for one in FORMATS), "dataset") == KINDS
    assert KIND_OF_ENDING[".tsv"] == "csv"
    assert set(BY_KIND) == {*KIND_OF_ENDING.values(), "webdataset"}


@pytest.mark.parametrize("size", [3, 1 << 20])
@pytest.mark.parametrize("content", [b"one\rtwo\rthree", b"one\r\ntwo\r\nthree\r\n", b"one\ntwo\r\nthree\n", b"one\rtwo\nthree\r\n"])
def test_lines_end_as_pythons_universal_newlines_have_them(tmp_path, monkeypatch, content, size):
    monkeypatch.setattr(common, "CHUNK_BYTES", size)
    assert texts(tmp_path / "a.txt", content) == ["one", "two", "three"]


def test_a_line_that_never_ends_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "MAX_LINE_BYTES", 1 << 20)
    monkeypatch.setattr(common, "CHUNK_BYTES", 1 << 19)
    with pytest.raises(DataError, match=r"a\.txt:2: expected a line of at most 1 MB, got a longer one"):
        texts(tmp_path / "a.txt", b"short\n" + b"x" * (3 << 20))


@pytest.mark.parametrize("per", ["line", "file", "paragraph"])
@pytest.mark.parametrize("mark", [codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b""])
def test_utf16_is_one_line_without_advice_to_replace_bytes(tmp_path, mark, per):
    content = mark + "some words of text\n".encode("utf-16-be" if mark == codecs.BOM_UTF16_BE else "utf-16-le") * 30
    with pytest.raises(DataError, match=r"a\.txt: expected UTF-8, got UTF-16; convert it: iconv -f UTF-16 -t UTF-8") as error:
        texts(tmp_path / "a.txt", content, per=per, invalid_utf8="replace")
    assert "invalid_utf8" not in str(error.value)


@pytest.mark.parametrize(("begin", "got"), [(b"PK\x03\x04", "zip"), (b"\x1f\x8b", "gzip"), (b"%PDF-1.7", "PDF"), (b"PAR1", "parquet")])
def test_another_format_under_the_name_of_text_is_named(tmp_path, begin, got):
    with pytest.raises(DataError, match=rf"a\.txt: expected text, got .*{got}"):
        texts(tmp_path / "a.txt", begin + b"\0rest\n" * 9)


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.csv", b"text,n\none, two,1\n", r"a\.csv:2: expected 2 fields, as the header has, got 3; quote the text"),
        ("a.csv", b'text,n\n"open,1\nnext,2\n', r"a\.csv:2: expected CSV, got a quote that is not closed before the end of the file"),
        (
            "a.csv",
            b'text,n\n"open,1\nnext,2\n"third",3\n',
            r"a\.csv:2: expected CSV, got a quote inside a quoted field that is not doubled",
        ),
        (
            "a.csv",
            b'text,n\n"he said \\"no\\"",1\n',
            r"a\.csv:2: expected CSV, got a quote inside a quoted field .*--quoting none or backslash",
        ),
        ("a.csv", b"text;n\none;1\n", r"a\.csv: expected columns separated by ',', got a header with ';' .*set --separator ';'"),
        ("a.csv", b"text,text\none,1\n", r"a\.csv: expected one column text, got 2; rename one"),
        ("a.jsonl", b'{"text": "x", "more": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", r"a\.jsonl:1: .*nested too deeply"),
    ],
)
def test_what_would_be_cut_or_swallowed_is_refused_by_file_and_line(tmp_path, name, content, line):
    with pytest.raises(DataError, match=line):
        texts(tmp_path / name, content)


def test_a_quote_in_tsv_is_a_character_and_settings_change_both(tmp_path):
    assert texts(tmp_path / "A.TSV", b'text\tn\n"open\t1\nthe "next"\t2\n') == ['"open', 'the "next"']
    assert texts(tmp_path / "b.tsv", b'text\tn\n"a\tb"\t1\n', quoting="double") == ["a\tb"]
    assert texts(tmp_path / "c.csv", b'text;n\n"he said \\"no\\"";1\n', separator=";", quoting="backslash") == ['he said "no"']
    assert texts(tmp_path / "d.csv", b'text|n\n"open|1\n', separator="|", quoting="none") == ['"open']
    assert texts(tmp_path / "e.csv", b"text\tn\none\t1\n", separator="\\t") == ["one"]


def test_settings_that_are_not_set_stay_out_of_a_manifest():
    assert not {"separator", "quoting"} & SourceSettings(path="a").model_dump(mode="json").keys()
    assert SourceSettings(path="a", separator=";").model_dump(mode="json")["separator"] == ";"


@pytest.mark.parametrize("kind", [pa.dictionary(pa.int32(), pa.string()), pa.string_view(), pa.large_string(), pa.binary()])
def test_strings_of_parquet_are_read_as_any_tool_writes_them(tmp_path, kind):
    plain = pa.array(["one", None, "three"], pa.binary() if kind == pa.binary() else pa.string())
    column = plain.dictionary_encode() if pa.types.is_dictionary(kind) else plain.cast(kind)
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ["one", "", "three"]


def test_a_part_with_nulls_only_gives_empty_documents_and_a_column_that_stands_twice_is_named(tmp_path):
    pq.write_table(pa.table({"text": pa.nulls(3)}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == ["", "", ""]
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), tmp_path / "b.parquet")
    with pytest.raises(DataError, match=r"b\.parquet: expected one column text, got 2 of that name; rename one"):
        texts(tmp_path / "b.parquet")
