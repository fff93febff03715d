"""Building: the same bytes from any number of processes and after any interruption; every wrong input one line."""

import errno
import hashlib
import json
import os
import subprocess
import sys
import threading
from concurrent.futures import Future
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from pydantic import ValidationError

from data_shards.build import blocks, sidecars
from data_shards.build import build as build_module
from data_shards.build.build import build
from data_shards.build.folder import LOCK
from data_shards.build.journal import Journal
from data_shards.build.settings import BuildSettings
from data_shards.errors import DataError
from data_shards.storage import shard_writer
from data_shards.storage.manifest import Manifest
from data_shards.storage.shard import Shard
from data_shards.tokenizer.tokenizer import load_tokenizer
from data_shards.tokenizer.workers import encoder
from data_shards.verify import verify


class InThisProcess:
    """A pool without processes, for what does not depend on them. submitted: the texts that came in."""

    submitted: list[bytes] = []  # noqa: RUF012 - reset by the fixture

    def __init__(self, tokenizer_json: str, dtype: str, processes: int) -> None:
        self._encode = encoder(tokenizer_json, dtype)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, texts: list[bytes]) -> Future:
        self.submitted.extend(texts)
        future: Future = Future()
        future.set_result(self._encode([text.decode() for text in texts]))
        return future


@pytest.fixture
def pool(monkeypatch):
    InThisProcess.submitted = []
    monkeypatch.setattr(build_module, "TokeniserPool", InThisProcess)
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 1000)
    return InThisProcess


@pytest.fixture
def settings(corpus, wordpiece):
    return settings_of(corpus, wordpiece)


def settings_of(corpus, name, **changes) -> BuildSettings:
    values = {"sources": [{"path": str(corpus)}], "tokenizer": str(name), "heldout": 0.2, "block_tokens": 300, "shard_tokens": 2000}
    return BuildSettings.model_validate(values | changes)


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of every file that is part of the corpus."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_shards_hold_the_tokenizers_own_ids_in_order(settings, pool, tmp_path, texts, wordpiece):
    manifest = build(settings, tmp_path)
    tokenizer = load_tokenizer(str(wordpiece))
    expected = {tuple(tokenizer(text, add_special_tokens=False, truncation=False, padding=False)["input_ids"]): None for text in texts}
    found = {}
    for split in ("train", "heldout"):
        documents = []
        for entry in manifest.entries(split):
            shard = Shard.open(tmp_path, entry, dtype=manifest.dtype)
            documents += [tuple(shard.document(index).tolist()) for index in range(entry.documents)]
        assert [row for row in expected if row in set(documents)] == list(dict.fromkeys(documents)), "in the order of the source"
        found[split] = documents
    assert len(found["train"]) + len(found["heldout"]) == 300
    assert {*found["train"], *found["heldout"]} == set(expected)
    assert set(found["train"]).isdisjoint(found["heldout"])
    assert (manifest.dtype, len(manifest.entries("train")) > 3) == ("uint8", True)
    assert verify(tmp_path).documents == 300


def test_what_is_dropped_is_counted(settings, pool, tmp_path):
    built_from = build(settings.model_copy(update={"drop_duplicates": True}), tmp_path).built_from
    assert (built_from.documents_read, built_from.empty, built_from.duplicate, built_from.invalid) == (302, 2, 1, 0)


def test_a_document_that_the_tokenizer_leaves_nothing_of_is_counted_as_empty(wordpiece, pool, tmp_path):
    (tmp_path / "a.txt").write_text("amber\n\u200b\u0007\nbirch\n")
    manifest = build(settings_of(tmp_path / "a.txt", wordpiece, heldout=0.0), tmp_path / "out")
    assert (manifest.documents("train"), manifest.built_from.empty) == (2, 1)


def test_duplicates_are_not_tokenised(settings, pool, tmp_path, texts):
    build(settings.model_copy(update={"drop_duplicates": True}), tmp_path)
    assert [text.decode() for text in pool.submitted] == texts[:-1]


class Endless(BaseHTTPRequestHandler):
    """A server that sends lines until nobody reads them."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        with suppress(ConnectionError):
            for number in count():
                self.wfile.write(b"".join(b"amber birch %d\n" % (1000 * number + line) for line in range(1000)))

    def log_message(self, *_: object) -> None:
        pass


def test_a_build_with_max_documents_ends_although_its_source_does_not(wordpiece, pool, tmp_path):
    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        source = {"path": f"http://127.0.0.1:{server.server_address[1]}/texts.txt"}
        settings = BuildSettings.model_validate({"sources": [source], "tokenizer": str(wordpiece), "heldout": 0.2, "max_documents": 70})
        manifest = build(settings, tmp_path)
        server.shutdown()
    assert manifest.documents("train") + manifest.documents("heldout") == manifest.built_from.documents_read == 70
    assert len(pool.submitted) == 70, "no document after the last one is tokenised"


def test_vocabulary_counts_and_lengths_are_those_of_the_train_split(settings, pool, tmp_path):
    manifest = build(settings, tmp_path)
    shards = [Shard.open(tmp_path, entry, dtype=manifest.dtype) for entry in manifest.entries("train")]
    ids = np.concatenate([shard.tokens(np.arange(shard.entry.tokens)) for shard in shards])
    with np.load(tmp_path / "vocabulary.npz", allow_pickle=False) as vocabulary:
        assert vocabulary["counts"].tolist() == [int((ids == index).sum()) for index in range(manifest.vocabulary_size)]
    assert np.load(tmp_path / "lengths-train.npy").tolist() == [length for shard in shards for length in shard.lengths.tolist()]


def test_a_roberta_like_tokenizer_builds_too(corpus, byte_bpe, pool, tmp_path):
    manifest = build(settings_of(corpus, byte_bpe), tmp_path)
    assert (manifest.cls_id, manifest.sep_id, manifest.dtype) == (0, 2, "uint16")
    assert verify(tmp_path).documents == 300


def test_a_finished_folder_is_returned_at_once_and_never_overwritten(settings, pool, tmp_path):
    manifest = build(settings, tmp_path)
    before, pool.submitted = hashes(tmp_path), []
    assert build(settings, tmp_path) == manifest
    with pytest.raises(DataError, match=r"expected shards built with the same settings, got block_tokens 300 -> 500; heldout 0\.2 -> 0\.5"):
        build(settings.model_copy(update={"heldout": 0.5, "block_tokens": 500}), tmp_path)
    assert pool.submitted == []
    assert hashes(tmp_path) == before


def full_disk(monkeypatch, after: int) -> None:
    """The disk is full from the given fsync of a shard on."""
    calls = []

    def fsync(handle):
        calls.append(handle)
        if len(calls) > after:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shard_writer.os, "fsync", fsync)


@pytest.mark.parametrize("after", [0, 4, 9])
def test_a_full_disk_keeps_what_is_durable_and_the_next_call_goes_on_from_there(settings, pool, tmp_path, monkeypatch, after):
    undisturbed = build(settings, tmp_path / "whole")
    texts, pool.submitted = len(pool.submitted), []
    with monkeypatch.context() as patch:
        full_disk(patch, after)
        with pytest.raises(DataError, match=r"expected room on the disk, got No space left on device; free some and build again"):
            build(settings, tmp_path / "out")
    assert not list((tmp_path / "out").glob(".*.partial"))
    journal = Journal.load(tmp_path / "out")
    kept = journal is not None and journal.splits
    pool.submitted = []
    assert build(settings, tmp_path / "out") == undisturbed
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")
    assert len(pool.submitted) < texts if kept else len(pool.submitted) == texts, "durable documents are not tokenised again"


@pytest.mark.parametrize("step", ["_write_lengths", "_write_tokenizer", "_sidecars"])
def test_a_build_that_ends_among_its_sidecars_goes_on(settings, pool, tmp_path, monkeypatch, step):
    undisturbed = build(settings, tmp_path / "whole")

    def full(*_):
        (tmp_path / "out" / ".tokenizer.partial").mkdir()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(sidecars, step, full)
        with pytest.raises(DataError, match="expected room on the disk"):
            build(settings, tmp_path / "out")
    with pytest.raises(DataError, match="got a build that has not finished"):
        Manifest.load(tmp_path / "out")
    pool.submitted = []
    assert build(settings, tmp_path / "out") == undisturbed
    assert hashes(tmp_path / "out") == hashes(tmp_path / "whole")
    assert pool.submitted == []


def interrupted(settings, folder, monkeypatch) -> None:
    with monkeypatch.context() as patch:
        full_disk(patch, 9)
        with pytest.raises(DataError):
            build(settings, folder)
    assert list(folder.glob("*.tar"))


def test_an_unfinished_build_refuses_other_settings_sources_and_tokenizers(
    settings, pool, tmp_path, monkeypatch, wordpiece, byte_bpe, corpus
):
    copy = tmp_path / "corpus.jsonl"
    copy.write_bytes(corpus.read_bytes())
    settings = settings_of(copy, wordpiece)
    folder = tmp_path / "out"
    interrupted(settings, folder, monkeypatch)
    before = hashes(folder)
    with pytest.raises(DataError, match="expected an unfinished build with the same settings, got seed 1 -> 2"):
        build(settings.model_copy(update={"seed": 2}), folder)
    lines = copy.read_text().splitlines()
    copy.write_text("\n".join([json.dumps({"text": "another first document"}), *lines[1:]]))
    with pytest.raises(DataError, match="expected the documents that its finished shards were built from, got others"):
        build(settings, folder)
    copy.write_text("\n".join(lines[:20]))
    with pytest.raises(DataError, match="expected the documents that its finished shards were built from, got others"):
        build(settings, folder)
    assert hashes(folder) == before


def test_a_durable_shard_that_was_altered_is_found_before_going_on(settings, pool, tmp_path, monkeypatch):
    interrupted(settings, tmp_path, monkeypatch)
    path = tmp_path / "train-000000.tar"
    content = bytearray(path.read_bytes())
    content[2200] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-000000\.tar"):
        build(settings, tmp_path)


def test_progress_grows_to_the_whole(settings, pool, tmp_path, monkeypatch, corpus):
    monkeypatch.setattr("data_shards.build.progress.PROGRESS_SECONDS", 0.0)
    told = []
    manifest = build(settings, tmp_path, progress=told.append)
    assert len(told) > 10
    for field in ("documents", "tokens", "shards", "bytes_read", "seconds"):
        values = [getattr(state, field) for state in told]
        assert values == sorted(values)
    last = told[-1]
    assert (last.documents, last.tokens) == (300, manifest.tokens("train") + manifest.tokens("heldout"))
    assert last.bytes_read == last.bytes_total == corpus.stat().st_size
    assert last.tokens_per_second > 0


@pytest.mark.parametrize(
    ("content", "changes", "line"),
    [
        ('{"text": ""}\n{"text": " "}\n', {}, "expected a document with text to train on, got 2 documents, 2 of them empty, 0 held out"),
        ("", {}, "expected a document with text to train on, got 0 documents"),
        ('{"text": "amber"}\n', {"heldout": 0.999999}, "got 1 documents, 0 of them empty, 1 held out; check sources, column and heldout"),
        ('{"body": "x"}\n', {}, "expected a column text, got columns body"),
        ('{"text": "x"}\n', {"sources": [{"path": "/absent"}]}, "/absent: expected a file, a folder or a glob, got nothing there"),
        ('{"text": "x"}\n', {"tokenizer": "/absent"}, "tokenizer /absent: expected a folder"),
    ],
)
def test_bad_input_is_one_line(wordpiece, pool, tmp_path, content, changes, line):
    (tmp_path / "a.jsonl").write_text(content)
    with pytest.raises(DataError, match=line) as error:
        build(settings_of(tmp_path / "a.jsonl", wordpiece, **changes), tmp_path / "out")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def test_a_mistake_in_the_sources_can_be_mended_in_the_same_folder(wordpiece, pool, tmp_path):
    path = tmp_path / "a.jsonl"
    with pytest.raises(DataError, match="got nothing there"):
        build(settings_of(path, wordpiece, heldout=0.0), tmp_path / "out")
    path.write_text('{"text": "amber"}\n')
    other = tmp_path / "b.jsonl"
    other.write_text('{"text": "birch"}\n')
    assert build(settings_of(other, wordpiece, heldout=0.0), tmp_path / "out").documents("train") == 1


def test_a_folder_that_cannot_be_made_is_one_line(settings, tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "inside"):
        with pytest.raises(DataError, match="expected a folder that can be written, got"):
            build(settings, folder)


def test_a_folder_with_other_files_is_left_alone(settings, tmp_path):
    (tmp_path / "thesis.doc").write_text("dear")
    with pytest.raises(DataError, match=r"expected an empty folder, got thesis\.doc; choose another"):
        build(settings, tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith(".")) == ["thesis.doc"]


def test_two_builds_in_one_folder_are_refused(settings, tmp_path):
    with FileLock(tmp_path / LOCK), pytest.raises(DataError, match="expected no other build at work"):
        build(settings, tmp_path)


@pytest.mark.parametrize("values", [{"sources": []}, {"block_tokens": 5000}, {"heldout": 1.0}, {"holdout": 0.1}])
def test_contradictory_settings_are_refused(corpus, wordpiece, values):
    with pytest.raises(ValidationError):
        settings_of(corpus, wordpiece, **values)


@pytest.mark.slow
def test_one_two_and_three_processes_write_the_same_bytes_also_from_a_thread(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(blocks, "CHUNK_BYTES", 2000)
    for processes in (1, 2, 3):
        thread = threading.Thread(target=build, args=(settings, tmp_path / str(processes), processes))
        thread.start()
        thread.join()
    assert hashes(tmp_path / "1") == hashes(tmp_path / "2") == hashes(tmp_path / "3")
    assert verify(tmp_path / "3").documents == 300


KILLER = """
import json, os, random, signal, sys, time
from data_shards.build import blocks as module
from data_shards.build.build import build
from data_shards.build.settings import BuildSettings
module.CHUNK_BYTES = 1000
settings, folder, seed = BuildSettings.model_validate_json(sys.argv[1]), sys.argv[2], int(sys.argv[3])
rng, kills, finished = random.Random(seed), 0, False
while not finished:
    child = os.fork()
    if child == 0:
        build(settings, folder, 2)
        os._exit(0)
    limit = time.monotonic() + rng.uniform(0.15, 0.9) if kills < 6 else float("inf")
    while not finished and time.monotonic() < limit:
        done, status = os.waitpid(child, os.WNOHANG)
        finished = done == child
        time.sleep(0.002)
    if finished:
        assert status == 0, status
    else:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
print(kills)
"""


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1])
def test_a_build_killed_at_random_moments_ends_with_the_bytes_of_an_undisturbed_one(settings, pool, tmp_path, seed, texts, wordpiece):
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("".join(json.dumps({"text": f"{number} {text}"}) + "\n" for number in range(40) for text in texts))
    settings = settings_of(corpus, wordpiece, shard_tokens=20_000, block_tokens=3000)
    build(settings, tmp_path / "whole")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", KILLER, settings.model_dump_json(), str(tmp_path / "killed"), str(seed)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) > 0, "else this test shows nothing"
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")
    assert Manifest.load(tmp_path / "killed").documents("train") > 9000
