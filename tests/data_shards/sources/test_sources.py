"""Sources: every kind of place and file gives the same documents, and a wrong one gives one line."""

import bz2
import csv
import gzip
import json
import lzma
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.compression import compr

from data_shards.errors import DataError
from data_shards.sources.files import total_bytes
from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import SourceCounts, documents

TEXTS = ["First, with a comma.", "Zweiter – mit Umlaut: ü", "", 'third "quoted"']


def read(path, **settings) -> list[str]:
    return [document.text for document in documents(SourceSettings(path=str(path), **settings))]


@pytest.fixture
def json_lines(tmp_path):
    path = tmp_path / "some.jsonl"
    path.write_text("".join(json.dumps({"text": text, "n": 1}, ensure_ascii=False) + "\n" for text in TEXTS), encoding="utf-8")
    return path


def test_json_lines_give_their_texts_and_origins(json_lines):
    assert read(json_lines) == TEXTS
    assert [document.origin for document in documents(SourceSettings(path=str(json_lines)))] == [f"{json_lines}:{n}" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize(("suffix", "compress"), [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress)])
def test_a_compressed_file_gives_the_same_texts(json_lines, suffix, compress):
    path = json_lines.with_name("some.jsonl" + suffix)
    path.write_bytes(compress(json_lines.read_bytes()))
    assert read(path) == TEXTS


def test_plain_text_is_split_as_asked(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xef\xbb\xbfone\r\ntwo\n\n  \nthree\nfour")
    assert read(path) == ["one", "two", "", "  ", "three", "four"]
    assert read(path, per="paragraph") == ["one\r\ntwo", "three\nfour"]
    assert read(path, per="file") == ["one\r\ntwo\n\n  \nthree\nfour"]


def test_parquet_columns_are_read_whatever_the_row_groups(tmp_path):
    path = tmp_path / "some.parquet"
    pq.write_table(pa.table({"body": [*TEXTS, None], "n": range(5)}), path, row_group_size=2)
    assert read(path, column="body") == [*TEXTS, ""]


@pytest.mark.parametrize(("name", "delimiter", "settings"), [("some.csv", ",", {}), ("some.tsv", "\t", {"quoting": "double"})])
def test_csv_columns_are_read_with_quotes_and_line_ends_inside(tmp_path, name, delimiter, settings):
    path = tmp_path / name
    texts = [*TEXTS[:2], "two\nlines", 'third "quoted"', "x" * 200_000]
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter).writerows([["n", "text"], *([1, text] for text in texts)])
    assert read(path, **settings) == texts


def test_a_folder_is_read_in_the_order_of_its_paths_without_what_is_hidden_or_of_another_kind(tmp_path):
    for name, text in (("b/2.txt", "second"), ("a.jsonl", '{"text": "first"}'), ("c.txt.gz", ""), (".hidden/x.txt", "no"), ("z.png", "no")):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "c.txt.gz").write_bytes(gzip.compress(b"third", mtime=0))
    assert read(tmp_path) == ["first", "second", "third"]
    assert read(tmp_path, kind="jsonl") == ["first"]
    assert read(f"{tmp_path}/**/*.txt*") == ["second", "third"]


def test_the_bytes_of_files_are_counted_as_stored(json_lines):
    path = json_lines.with_suffix(".jsonl.gz")
    path.write_bytes(gzip.compress(json_lines.read_bytes()))
    counts = SourceCounts()
    list(documents(SourceSettings(path=str(json_lines.parent)), counts))
    sizes = json_lines.stat().st_size + path.stat().st_size
    assert total_bytes([SourceSettings(path=str(json_lines.parent))]) == sizes
    assert counts.bytes_read == sizes
    assert total_bytes([SourceSettings(path="some/name", kind="dataset")]) is None


@pytest.mark.parametrize("streaming", [True, False])
def test_a_folder_of_files_is_read_by_datasets(tmp_path, streaming):
    (tmp_path / "train.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS))
    assert read(tmp_path, kind="dataset", streaming=streaming) == TEXTS


def test_a_folder_that_datasets_has_saved_is_read_by_datasets(tmp_path):
    datasets.DatasetDict({"test": datasets.Dataset.from_dict({"body": TEXTS})}).save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved", kind="dataset", split="test", column="body") == TEXTS


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"split": "test"}, "expected a dataset with split test, got"),
        ({"column": "body"}, "expected a column body, got columns text; set the source's column"),
    ],
)
def test_a_wrong_dataset_is_one_line(tmp_path, settings, line):
    (tmp_path / "train.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(DataError, match=line) as error:
        read(tmp_path, kind="dataset", **settings)
    assert "\n" not in str(error.value)


def test_zst_without_its_package_is_one_line_that_names_it(tmp_path, monkeypatch):
    monkeypatch.delitem(compr, "zstd", raising=False)
    (tmp_path / "a.txt.zst").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.txt\.zst: expected the package zstandard for 'zstd', got none; pip install zstandard"):
        read(tmp_path / "a.txt.zst")


def test_files_are_read_over_http(tmp_path, json_lines):
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            assert read(f"{address}/some.jsonl") == TEXTS
            with pytest.raises(DataError, match=r"absent\.txt: expected a readable text file, got HTTP Error 404"):
                read(f"{address}/absent.txt")
        finally:
            server.shutdown()


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("a.jsonl", b'{"body": "x"}\n', r"a\.jsonl:1: expected a column text, got columns body; set the source's column"),
        ("a.jsonl", b'{"text": "x"}\n{"te', r"a\.jsonl:2: expected one JSON object a line, got Unterminated string"),
        ("a.jsonl", b"[1]\n", r"a\.jsonl:1: expected one JSON object a line, got list"),
        ("a.jsonl", b'{"text": 5}\n', r"a\.jsonl:1: expected text in column text, got int"),
        ("a.jsonl", b'{"text": "ab"}\n{"text": "c\xff"}\n', r"a\.jsonl, byte 26: expected UTF-8, got byte 0xff"),
        ("a.jsonl", b'{"text": "\\ud800"}\n', r"a\.jsonl, byte 0: expected UTF-8, got an unpaired surrogate"),
        ("a.txt", b"fine\nnot \xe4 fine\n", r"a\.txt, byte 9: expected UTF-8, got byte 0xe4"),
        ("a.csv", b"title,body\n1,2\n", r"a\.csv: expected a column text, got columns title, body"),
        ("a.csv", b"title,text\n1\n", r"a\.csv:2: expected 2 fields, as the header has, got 1"),
        ("a.csv", b"title,text\n1,\xe4\n", r"a\.csv, byte 13: expected UTF-8"),
        ("a.parquet", b"not one", r"a\.parquet: expected a parquet file, got"),
        ("a.txt.gz", gzip.compress(b"some text" * 99, mtime=0)[:-20], r"a\.txt\.gz: expected a readable text file, got"),
        ("a.txt.gz", b"plain", r"a\.txt\.gz: expected a readable text file, got"),
    ],
)
def test_a_broken_file_is_one_line_that_names_the_place(tmp_path, name, content, line):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=line) as error:
        read(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_parquet_column_that_is_absent_or_no_text_is_refused(tmp_path):
    pq.write_table(pa.table({"n": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="expected a column text, got columns n"):
        read(tmp_path / "a.parquet")
    with pytest.raises(DataError, match="expected text in column n, got int64"):
        read(tmp_path / "a.parquet", column="n")


def test_invalid_utf8_is_repaired_or_skipped_on_request_and_counted(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(b"fine\nn\xe4\nalso\n")
    for choice, texts in (("replace", ["fine", "n\ufffd", "also"]), ("skip", ["fine", "also"])):
        counts = SourceCounts()
        assert [d.text for d in documents(SourceSettings(path=str(path), invalid_utf8=choice), counts)] == texts
        assert counts.invalid == 1


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("absent.txt", r"absent\.txt: expected a file, a folder or a glob, got nothing there"),
        ("absent/*.txt", "expected files that match, got none"),
        ("", "expected a folder with files that end in .txt"),
    ],
)
def test_a_missing_place_is_one_line(tmp_path, path, line):
    with pytest.raises(DataError, match=line):
        read(tmp_path / path)
