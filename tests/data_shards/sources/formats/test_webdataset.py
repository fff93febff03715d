"""Corpora that are webdataset tars already, written with webdataset itself."""

import gzip
import io
import tarfile

import pytest
import webdataset

from data_shards.errors import DataError
from data_shards.sources.files import find_files
from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import documents


def read(path, **settings) -> list[str]:
    return [document.text for document in documents(SourceSettings(path=str(path), kind="webdataset", **settings))]


@pytest.fixture
def tars(tmp_path):
    """Three tars of two samples each, with the text as `txt` and inside `json`."""
    for number in range(3):
        with webdataset.TarWriter(str(tmp_path / f"{number:03d}.tar")) as sink:
            for sample in range(2):
                text = f"sample {number} {sample} ä"
                sink.write({"__key__": f"{number}-{sample}", "txt": text, "json": {"body": text.upper(), "n": None}, "cls": 1})
    return tmp_path


def test_samples_are_read_in_order_from_a_brace_pattern_a_folder_a_glob_and_a_file(tars):
    texts = [f"sample {number} {sample} ä" for number in range(3) for sample in range(2)]
    for path in (f"{tars}/{{000..002}}.tar", tars, f"{tars}/*.tar"):
        assert read(path) == texts
    assert read(f"{tars}/{{000,002}}.tar") == texts[:2] + texts[4:]
    assert read(tars / "001.tar") == texts[2:4]


def test_a_field_of_a_json_member_is_the_text(tars):
    assert read(tars / "000.tar", member="json:body") == ["SAMPLE 0 0 Ä", "SAMPLE 0 1 Ä"]
    assert read(tars / "000.tar", member="json:n") == ["", ""]


def test_compressed_tars_and_compressed_members_are_read(tars):
    (tars / "z.tar.gz").write_bytes(gzip.compress((tars / "000.tar").read_bytes()))
    assert read(tars / "z.tar.gz") == ["sample 0 0 ä", "sample 0 1 ä"]
    with tarfile.open(tars / "y.tar", "w") as tar:
        for name, content in (("a.txt.gz", gzip.compress(b"alpha")), ("b.txt", b"beta")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    assert read(tars / "y.tar") == ["alpha", "beta"]


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"member": "text"}, r"000\.tar: 0-0: expected a column text, got columns \w+, \w+, \w+; set the source's member"),
        ({"member": "json:title"}, r"0-0: expected a column title, got columns body, n"),
        ({"member": "cls:a"}, r"0-0: expected one JSON object a line, got int"),
    ],
)
def test_a_member_that_is_not_there_is_named_with_its_sample(tars, settings, line):
    with pytest.raises(DataError, match=line):
        read(tars / "000.tar", **settings)


def test_commands_missing_tars_and_broken_tars_are_one_line(tars):
    with pytest.raises(DataError, match=r"pipe:cat a\.tar: expected files or URLs, got a command"):
        read("pipe:cat a.tar")
    with pytest.raises(DataError, match=r"003\.tar: expected a file, a folder or a glob, got nothing there"):
        read(f"{tars}/{{000..003}}.tar")
    (tars / "000.tar").write_bytes((tars / "000.tar").read_bytes()[:700])
    with pytest.raises(DataError, match=r"000\.tar: expected a"):
        read(tars / "000.tar")
    (tars / "000.tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(DataError, match=r"000\.tar: expected a"):
        read(tars / "000.tar")


def test_tars_are_no_text_where_the_kind_is_guessed(tars):
    (tars / "a.txt").write_text("alpha\n")
    source = SourceSettings(path=str(tars))
    assert [document.text for document in documents(source)] == ["alpha"]
    assert find_files(source).left_out == [(str(tars / f"00{n}.tar"), "unknown ending .tar") for n in range(3)]


def test_a_tar_that_is_cut_anywhere_or_followed_by_another_is_never_read_in_part(tars):
    whole = (tars / "000.tar").read_bytes()
    content = len(whole.rstrip(b"\0"))
    for size in (*range(512, content, 100), *range(512, content, 512)):
        (tars / "cut.tar").write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"cut\.tar: "):
            read(tars / "cut.tar")
    (tars / "two.tar").write_bytes(whole + (tars / "001.tar").read_bytes())
    with pytest.raises(DataError, match=r"two\.tar: expected the end of the tar, got none"):
        read(tars / "two.tar")
