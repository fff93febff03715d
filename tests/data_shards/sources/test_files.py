"""The files of a source: read, or named among those that are left out."""

import os

import pytest

from data_shards.errors import DataError
from data_shards.sources.files import ending, find_files
from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import documents


def texts(path, **settings) -> list[str]:
    return [document.text for document in documents(SourceSettings(path=str(path), **settings))]


def names(files: list[tuple[str, str]], folder) -> list[tuple[str, str]]:
    return [(os.path.relpath(path, folder), other) for path, other in files]


def test_files_of_unknown_endings_and_cards_are_named_and_linked_folders_are_read(tmp_path):
    corpus, elsewhere = tmp_path / "corpus", tmp_path / "elsewhere"
    (corpus / "sub").mkdir(parents=True)
    elsewhere.mkdir()
    for path, text in ((corpus / "a.TXT", "one"), (corpus / "what?.txt", "two"), (elsewhere / "b.txt", "three")):
        path.write_text(text)
    for name in ("notes.zip", "README.md", "dataset_infos.json", "sub/data"):
        (corpus / name).write_text("no")
    (corpus / "linked").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "back").symlink_to(corpus, target_is_directory=True)
    found = find_files(SourceSettings(path=str(corpus)))
    assert names(found.files, corpus) == [("a.TXT", "text"), ("linked/b.txt", "text"), ("what?.txt", "text")]
    assert names(found.left_out, corpus) == [
        ("README.md", "describes the data set"),
        ("dataset_infos.json", "describes the data set"),
        ("notes.zip", "unknown ending .zip"),
        ("sub/data", "no ending"),
    ]
    assert texts(corpus) == ["one", "three", "two"]


def test_a_folder_of_cards_alone_is_read(tmp_path):
    (tmp_path / "README.md").write_text("text")
    assert texts(tmp_path) == ["text"]


def test_a_link_that_leads_nowhere_stops_by_name(tmp_path):
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "b.txt").symlink_to("gone.txt")
    with pytest.raises(DataError, match=r"b\.txt: expected a file, got a link to gone\.txt, which is not there; correct or remove it"):
        texts(tmp_path)


@pytest.mark.parametrize("inside", [True, False])
def test_a_pipe_is_one_line(tmp_path, inside):
    os.mkfifo(tmp_path / "p.txt")
    with pytest.raises(DataError, match=r"p\.txt: expected a file, got a pipe, which cannot be read twice"):
        texts(tmp_path if inside else tmp_path / "p.txt")


def test_the_last_ending_decides_in_either_case_and_a_query_ends_urls_only(tmp_path):
    assert [ending(name) for name in ("A.TSV", "x.tsv/a.csv", "a.txt.GZ", "a?.jsonl", "https://x/a.csv?b=c.txt")] == [
        *(".tsv", ".csv", ".txt", ".jsonl", ".csv")
    ]
    folder = tmp_path / "export.tsv.d"
    folder.mkdir()
    (folder / "a.csv").write_text('text,n\n"a\tb, c",1\n')
    assert texts(folder / "a.csv") == ["a\tb, c"]
