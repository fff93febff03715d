"""Merged parts are the folder that one build makes, byte for byte; what is missing or damaged is one line."""

import gzip
import hashlib
import json
import random
from concurrent.futures import Future
from pathlib import Path

import pytest

from data_shards.build import blocks, parts
from data_shards.build import build as build_module
from data_shards.build.build import build
from data_shards.build.folder import LOCK
from data_shards.build.merge import merge
from data_shards.build.parts import PARTS, build_part, items
from data_shards.build.settings import BuildSettings
from data_shards.errors import DataError
from data_shards.tokenizer.workers import encoder
from data_shards.verify import verify


class InThisProcess:
    """A pool without processes; it counts the documents with text that it gets."""

    documents = 0

    def __init__(self, tokenizer_json: str, dtype: str, processes: int) -> None:
        self._encode = encoder(tokenizer_json, dtype)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, texts: list[bytes]) -> Future:
        InThisProcess.documents += sum(map(bool, texts))
        future: Future = Future()
        future.set_result(self._encode([text.decode() for text in texts]))
        return future


@pytest.fixture
def pool(monkeypatch):
    InThisProcess.documents = 0
    for module in (build_module, parts):
        monkeypatch.setattr(module, "TokeniserPool", InThisProcess)
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 700)
    monkeypatch.setattr(parts, "GROUP_DOCUMENTS", 16)
    return InThisProcess


@pytest.fixture
def library(tmp_path, wordpiece):
    """settings(**changes): five files of three kinds, with empty, repeated and broken documents."""
    folder = tmp_path / "library"
    folder.mkdir()
    draw = random.Random(11)
    words = "amber birch cedar dune ember fern grove heather iris juniper".split()  # noqa: SIM905
    texts = [" ".join(draw.choices(words, k=draw.randint(1, 30))) for _ in range(230)] + ["", "  ", "amber birch", "amber birch", "\u200b"]
    draw.shuffle(texts)
    (folder / "a.txt").write_text("\n".join(texts[:90]))
    (folder / "b.txt").write_bytes(b"fine line\nbroken \xff line\n" + "\n".join(texts[90:100]).encode() + b"\nends broken \xfe")
    (folder / "c.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts[100:160]))
    (folder / "d.txt.gz").write_bytes(gzip.compress("\n".join(texts[160:]).encode()))
    (folder / "e.txt").write_text("amber birch")

    def settings(**changes) -> BuildSettings:
        source = {"path": str(folder), "invalid_utf8": changes.pop("invalid_utf8", "skip")}
        values = {"sources": [source], "tokenizer": str(wordpiece), "heldout": 0.2, "block_tokens": 200, "shard_tokens": 700}
        return BuildSettings.model_validate(values | changes)

    return settings


def hashes(folder: Path) -> dict[str, str]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize("count", [1, 3, 13])
@pytest.mark.parametrize(
    "changes",
    [{}, {"drop_duplicates": True}, {"max_documents": 97}, {"max_documents": 94, "invalid_utf8": "replace"}, {"heldout": 0.0}],
    ids=lambda changes: ",".join(changes) or "plain",
)
def test_merged_parts_are_the_folder_of_one_build(library, pool, tmp_path, count, changes):
    settings = library(**changes)
    expected = build(settings, tmp_path / "whole")
    for part in reversed(range(count)):
        build_part(settings, tmp_path / "merged", part, count, processes=1)
    assert merge(settings, tmp_path / "merged", count) == expected
    assert hashes(tmp_path / "merged") == hashes(tmp_path / "whole")
    assert not (tmp_path / "merged" / PARTS).exists()
    assert verify(tmp_path / "merged").documents > 0


@pytest.mark.parametrize("count", [2, 13])
def test_progress_of_a_part_grows_to_the_bytes_that_it_reads(library, pool, tmp_path, monkeypatch, count):
    monkeypatch.setattr("data_shards.build.progress.PROGRESS_SECONDS", 0.0)
    shares = items(library(), count)
    for part, share in enumerate(shares):
        reports = []
        build_part(library(), tmp_path / "out", part, count, processes=1, progress=reports.append)
        for field in ("documents", "tokens", "bytes_read"):
            values = [getattr(report, field) for report in reports]
            assert values == sorted(values)
        rounding = sum(item.stripes for item in share)
        assert all(report.bytes_read < report.bytes_total + rounding for report in reports)
        assert len(reports) >= len(share)


def test_every_document_is_tokenised_by_one_part(library, pool, tmp_path):
    for part in range(7):
        build_part(library(), tmp_path / "out", part, 7, processes=1)
    assert pool.documents == merge(library(), tmp_path / "out", 7).built_from.documents_read - 2  # the two without text


def test_files_are_dealt_by_size_and_few_of_them_are_cut(library):
    (whole, rest) = items(library(), 2)
    assert {Path(item.source.path).name for item in whole + rest} == {"a.txt", "b.txt", "c.jsonl", "d.txt.gz", "e.txt"}
    assert all(item.stripes == 1 for item in whole + rest)
    sizes = [sum(item.bytes for item in share) for share in (whole, rest)]
    assert min(sizes) > 0.3 * sum(sizes)
    cut = items(library(), 13)
    assert all(cut)
    assert {(item.number, item.stripe) for share in cut for item in share} == {(n, s) for n in range(5) for s in range(3)}


def test_what_a_killed_part_has_finished_is_not_made_again(library, pool, tmp_path):
    settings = library()
    build_part(settings, tmp_path / "out", 0, 2, processes=1)
    made = sorted((tmp_path / "out" / PARTS).rglob("0*-of-*"))
    made[-1].unlink()
    kept = {path: path.stat().st_mtime_ns for path in made[:-1]}
    build_part(settings, tmp_path / "out", 0, 2, processes=1)
    assert made[-1].exists()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_merge_without_all_parts_names_those_that_lack(library, pool, tmp_path):
    settings = library()
    build_part(settings, tmp_path / "out", 1, 3, processes=1)
    with pytest.raises(DataError, match=r"expected 3 finished parts of these settings, got none of part 1, 3 \(2 in all\); build them"):
        merge(settings, tmp_path / "out", 3)
    with pytest.raises(DataError, match="expected 3 finished parts"):  # other settings are other parts
        merge(library(seed=9), tmp_path / "out", 3)
    assert not list((tmp_path / "out").glob("*.tar"))


@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: data[:60] + bytes([data[60] ^ 1]) + data[61:], lambda data: b""])
def test_a_damaged_part_is_named_and_never_merged(library, pool, tmp_path, damage):
    settings = library()
    build_part(settings, tmp_path / "out", 0, 1, processes=1)
    item = next((tmp_path / "out" / PARTS).rglob("000000-*"))
    item.write_bytes(damage(item.read_bytes()))
    with pytest.raises(DataError, match=f"{item.name}: expected a whole part, got a damaged one"):
        merge(settings, tmp_path / "out", 1)
    assert not (tmp_path / "out" / "manifest.json").exists()
    item.unlink()
    build_part(settings, tmp_path / "out", 0, 1, processes=1)
    assert merge(settings, tmp_path / "out", 1) == build(settings, tmp_path / "whole")


def test_a_finished_folder_is_neither_built_nor_merged_again(library, pool, tmp_path):
    manifest = build(library(), tmp_path / "out")
    before = hashes(tmp_path / "out")
    build_part(library(), tmp_path / "out", 0, 2)
    assert merge(library(), tmp_path / "out", 2) == manifest
    for again in (lambda: build_part(library(seed=3), tmp_path / "out", 0, 2), lambda: merge(library(seed=3), tmp_path / "out", 2)):
        with pytest.raises(DataError, match="expected shards built with the same settings"):
            again()
    assert hashes(tmp_path / "out") == before
