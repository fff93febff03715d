"""Folders and patterns as users have them: each file is read, or named with the reason."""

import gzip
import json
import os

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_shards.errors import DataError
from data_shards.sources.files import find_files
from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import documents


def read(path, **settings) -> list[str]:
    return [document.text for document in documents(SourceSettings(path=str(path), **settings))]


def notes(path, **settings) -> list[tuple[str, str]]:
    """(name, reason) of the files that are left out."""
    return [(os.path.basename(name), reason) for name, reason in find_files(SourceSettings(path=str(path), **settings)).left_out]


@pytest.fixture
def folder(tmp_path):
    """A folder with one text file."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.txt").write_text("alpha\n")
    return tmp_path / "in"


def test_a_folder_without_surprises_has_no_notes(folder):
    assert (read(folder), notes(folder)) == (["alpha"], [])


def test_a_linked_folder_is_read_and_a_linked_file_too(folder, tmp_path):
    (tmp_path / "disk2" / "deep").mkdir(parents=True)
    (tmp_path / "disk2" / "deep" / "b.txt").write_text("beta\n")
    (folder / "more").symlink_to("../disk2")
    (tmp_path / "c.txt").write_text("gamma\n")
    (folder / "n.txt").symlink_to(tmp_path / "c.txt")
    assert read(folder) == ["alpha", "beta", "gamma"]
    assert notes(folder) == []


@pytest.mark.parametrize("target", [".", "sub", "../in/sub"])
def test_a_folder_is_read_where_it_stands_and_not_by_a_link_that_sorts_before_it(folder, target):
    (folder / "sub").mkdir()
    (folder / "sub" / "b.txt").write_text("beta\n")
    (folder / "again").symlink_to(target)
    assert [os.path.relpath(path, folder) for path, _ in find_files(SourceSettings(path=str(folder))).files] == ["a.txt", "sub/b.txt"]


def test_a_link_to_a_folder_that_holds_this_one_is_named(folder):
    (folder.parent / "outside.txt").write_text("beta\n")
    (folder / "up").symlink_to("..")
    assert read(folder) == ["alpha"]
    assert notes(folder) == [("up", "a link to a folder that holds this one")]


def test_two_links_to_one_folder_are_read_once_by_the_first(folder, tmp_path):
    (tmp_path / "disk2").mkdir()
    (tmp_path / "disk2" / "b.txt").write_text("beta\n")
    for name in ("y", "x"):
        (folder / name).symlink_to("../disk2")
    assert [os.path.relpath(path, folder) for path, _ in find_files(SourceSettings(path=str(folder))).files] == ["a.txt", "x/b.txt"]


def test_a_folder_that_cannot_be_read_stops_by_name(folder, monkeypatch):
    (folder / "locked").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr("data_shards.sources.files.os.scandir", scandir)
    with pytest.raises(DataError, match=r"expected a folder that can be read, got .*Permission denied.*locked"):
        read(folder)


@pytest.mark.parametrize("pattern", ["in", "in/*", "in/**/*.txt", "in/gone.txt"])
def test_a_link_that_leads_nowhere_stops_by_name(folder, tmp_path, pattern):
    (folder / "gone.txt").symlink_to("../old/gone.txt")
    with pytest.raises(
        DataError, match=r"gone\.txt: expected a file, got a link to \.\./old/gone\.txt, which is not there; correct or remove it"
    ):
        read(tmp_path / pattern)


def test_a_pattern_that_meets_a_folder_twice_reads_it_once(folder):
    (folder / "self").symlink_to(".")
    assert read(f"{folder}/**/*.txt") == ["alpha"]


@pytest.mark.parametrize("name", ["What is malt?.txt", "a#b.txt", "per%20cent.txt", "a[1].txt"])
def test_a_name_is_read_as_it_stands(folder, name):
    (folder / name).write_text("beta\n")
    assert sorted(read(folder)) == ["alpha", "beta"]
    assert read(folder / name) == ["beta"]


@pytest.mark.parametrize("name", ["B.TXT.GZ", "b.Txt.gz", "b.text.GZ", "b.tsv.d.TXT.Gz"])
def test_an_ending_counts_in_either_case(folder, name):
    (folder / name).write_bytes(gzip.compress(b"beta\n"))
    assert sorted(read(folder)) == ["alpha", "beta"]


def test_the_ending_of_the_file_decides_and_not_that_of_a_folder(tmp_path):
    (tmp_path / "export.tsv.d").mkdir()
    (tmp_path / "export.tsv.d" / "a.csv").write_text('text,n\n"alpha, beta",1\n')
    (tmp_path / "export.tsv.d" / "B.TSV").write_text("text\tn\ngamma, delta\t1\n")
    assert read(tmp_path) == ["gamma, delta", "alpha, beta"]


def test_what_is_left_out_of_a_folder_is_named(folder):
    for name in ("b.txt.zip", "c.tar.gz", "d.arrow", "noending", ".hidden.txt", ".DS_Store"):
        (folder / name).write_bytes(b"x")
    assert read(folder) == ["alpha"]
    assert notes(folder) == [
        (".hidden.txt", "hidden"),
        ("b.txt.zip", "unknown ending .zip"),
        ("c.tar.gz", "unknown ending .gz"),
        ("d.arrow", "unknown ending .arrow"),
        ("noending", "no ending"),
    ]


def test_files_of_another_kind_than_asked_for_are_named(folder):
    (folder / "b.jsonl").write_text('{"text": "beta"}\n')
    assert read(folder, kind="jsonl") == ["beta"]
    assert notes(folder, kind="jsonl") == [("a.txt", "not of kind jsonl")]


def test_a_pattern_says_which_files_it_reads_as_text_and_which_folders_it_leaves_out(folder):
    (folder / "part-00000").write_text("beta\n")
    (folder / "sub").mkdir()
    assert sorted(read(folder / "*")) == ["alpha", "beta"]
    assert notes(folder / "*") == [("sub", "a folder")]
    for path in (folder / "*", folder / "part-00000"):
        assert find_files(SourceSettings(path=str(path))).guessed == [str(folder / "part-00000")]


@pytest.mark.parametrize("card", ["README.md", "readme.txt", "README_de.md", "LICENSE.txt", "LICENCE.md", "dataset_infos.json"])
@pytest.mark.parametrize("data", ["train.parquet", "train.jsonl", "train.txt"])
def test_what_a_dataset_repository_says_about_its_data_is_left_out(tmp_path, card, data):
    if data.endswith("parquet"):
        pq.write_table(pa.table({"text": ["alpha"]}), tmp_path / data)
    else:
        (tmp_path / data).write_text(json.dumps({"text": "alpha"}) + "\n" if data.endswith("jsonl") else "alpha\n")
    (tmp_path / card).write_text("---\nlicense: mit\n---\n# About\n")
    for path in (tmp_path, tmp_path / "*"):
        assert read(path) == ["alpha"]
        assert notes(path) == [(card, "describes the data set")]


def test_a_readme_alone_is_text_like_any_other(tmp_path):
    (tmp_path / "README.md").write_text("alpha\n")
    assert read(tmp_path) == read(tmp_path / "README.md") == read(f"{tmp_path}/*.md") == ["alpha"]


def test_a_device_as_a_source_is_one_line():
    with pytest.raises(DataError, match="/dev/null: expected a file, got something else"):
        read("/dev/null")


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"PK\x03\x04....", "got a zip archive; unpack it"),
        (b"\x1f\x8b\x08....", r"got gzip data; let the file's name end in \.gz"),
        (b"BZh91AY&SY....", "got bzip2 data"),
        (b"\xfd7zXZ\x00....", "got xz data"),
        (b"\x28\xb5\x2f\xfd....", "got zstd data"),
        (b"PAR1....", "got a parquet file; let its name end"),
        (b"%PDF-1.7\n", "got a PDF; convert it to text"),
        (b"a.txt".ljust(257, b"\0") + b"ustar", "got a tar archive; unpack it, or set kind: webdataset"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n", "got a Git LFS pointer; fetch the file with"),
    ],
)
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv"])
def test_a_file_that_is_no_text_is_known_by_its_first_bytes(tmp_path, name, content, line):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=line):
        read(tmp_path / name, invalid_utf8="replace")


def test_a_git_lfs_pointer_in_place_of_a_parquet_file_is_named(tmp_path):
    (tmp_path / "a.parquet").write_text("version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(DataError, match="expected the file, got a Git LFS pointer; fetch the file with git lfs pull"):
        read(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("choice", ["error", "replace", "skip"])
def test_utf16_is_named_and_never_replaced(tmp_path, encoding, choice):
    (tmp_path / "a.txt").write_bytes("der Müller repariert die Uhr\n".encode(encoding))
    with pytest.raises(DataError, match=r"a\.txt: expected UTF-8, got UTF-(16|32); convert it: iconv") as error:
        read(tmp_path / "a.txt", invalid_utf8=choice)
    assert f"got {encoding[:6].upper()}" in str(error.value)


def test_a_lone_nul_is_text(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"alpha \x00 beta gamma\n")
    assert read(tmp_path) == ["alpha \x00 beta gamma"]


@pytest.mark.parametrize("end", [b"\r", b"\r\n", b"\n"])
def test_lines_end_as_in_any_system(tmp_path, end):
    (tmp_path / "a.txt").write_bytes(b"alpha" + end + b"beta" + end + end + b"gamma" + end)
    (tmp_path / "b.jsonl").write_bytes(b'{"text": "one"}' + end + b'{"text": "two"}' + end)
    (tmp_path / "c.csv").write_bytes(b"n,text" + end + b"1,three" + end + b'2,"fo' + end + b'ur"' + end)
    assert read(tmp_path / "a.txt") == ["alpha", "beta", "", "gamma"]
    assert read(tmp_path / "a.txt", per="paragraph") == ["alpha" + end.decode() + "beta", "gamma"]
    assert read(tmp_path / "b.jsonl") == ["one", "two"]
    assert read(tmp_path / "c.csv") == ["three", "fo" + end.decode() + "ur"]


def test_lines_that_cross_the_read_buffer_keep_their_ends(tmp_path):
    rows = ["x" * length for length in (8191, 8192, 8190, 1, 16383)]
    (tmp_path / "a.txt").write_bytes("\r\n".join(rows).encode())
    assert read(tmp_path) == rows
