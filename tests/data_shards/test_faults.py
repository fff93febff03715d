"""Shards that are damaged, and servers that fail: retried, named by shard and key, or skipped on request without moving anything else."""

import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from data_shards.build.build import build
from data_shards.build.settings import BuildSettings
from data_shards.errors import DamagedFile, DataError
from data_shards.sources.settings import SourceSettings
from data_shards.storage import download
from data_shards.storage.location import Location
from data_shards.storage.manifest import Manifest
from data_shards.storage.open_shards import OpenShards
from data_shards.storage.shard import Shard
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream, StreamBatch

G = 12
SETTINGS = {"window_tokens": 16, "lanes": 3}
NAME = "train-000002.tar"


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-700])


def flip(path: Path) -> None:
    """One bit of the second block's ids."""
    block = Shard.open(path.parent, Manifest.load(path.parent).entries("train")[2]).blocks[1]
    content = bytearray(path.read_bytes())
    content[block.tokens_at + 4] ^= 4
    path.write_bytes(content)


def replace(path: Path) -> None:
    """Another shard's bytes, made as long as this one's."""
    size = path.stat().st_size
    other = (path.parent / "train-000001.tar").read_bytes()
    path.write_bytes((other + bytes(size))[:size])


def remove(path: Path) -> None:
    path.unlink()


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (truncate, r"train-000002\.tar: expected .*the last whole key is 000002-0000\d; bring the file back"),
    "flipped": (flip, r"train-000002\.tar.* key 000002-00001: expected the tokens that were written"),
    "replaced": (replace, r"train-000002\.tar, key 000001-00000: expected keys of shard 000002, got another shard's file"),
    "missing": (remove, r"train-000002\.tar: expected a file of \d+ bytes, got none"),
}


@pytest.fixture
def folder(tmp_path, make_shards, random_documents) -> Path:
    make_shards(tmp_path / "shards", random_documents(100, seed=7), random_documents(9, seed=2))
    return tmp_path / "shards"


def stream(folder: object, **settings: object) -> Stream:
    return Stream(folder, "train", StreamSettings(**SETTINGS, **settings), G)


def rows_of(stream: Stream, updates: int, world: int = 1, micro: int = G) -> list[dict[str, np.ndarray]]:
    """Each update's rows put back into the order of its slots."""
    found = []
    for update in range(updates):
        parts: list[tuple[np.ndarray, StreamBatch]] = []
        for rank in range(world):
            for index in range(G // (world * micro)):
                batch = stream.batch(update * G, rank, world, micro, index)
                parts.append((batch.first_slot + world * np.arange(micro), batch))
        order = np.argsort(np.concatenate([slots for slots, _ in parts]))
        found.append(
            {name: np.concatenate([getattr(b, name) for _, b in parts])[order] for name in ("input_ids", "labels", "segments", "windows")}
        )
    return found


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_shard_stops_the_reader_with_shard_and_key(folder, damage):
    hurt, line = DAMAGES[damage]
    hurt(folder / NAME)
    with pytest.raises(DamagedFile, match=line) as error:
        rows_of(stream(folder), 30)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_skipped_shards_rows_are_empty_and_every_other_row_stays_where_it_was(folder, damage):
    whole = stream(folder)
    updates = whole.windows_per_epoch // G
    before = rows_of(whole, updates)
    first, last = whole._rows._first[2:4]
    DAMAGES[damage][0](folder / NAME)
    skipping = stream(folder, on_corrupt="skip")
    assert skipping.fingerprint == whole.fingerprint, "a run may go on with another setting"
    lost = 0
    for one, other in zip(before, rows_of(skipping, updates), strict=True):
        assert np.array_equal(one["windows"], other["windows"])
        gone = (one["windows"] >= first) & (one["windows"] < last)
        lost += int(gone.sum())
        assert not other["segments"][gone].any()
        assert (other["labels"][gone] == -100).all()
        for name in ("input_ids", "labels", "segments"):
            assert np.array_equal(one[name][~gone], other[name][~gone])
    assert lost > G


def test_what_is_skipped_does_not_depend_on_ranks_and_micro_batches(folder):
    flip(folder / NAME)
    one = rows_of(stream(folder, on_corrupt="skip"), 20)
    for world, micro in ((2, 3), (3, 1), (4, 3)):
        ranks = rows_of(stream(folder, on_corrupt="skip"), 20, world, micro)
        assert all(np.array_equal(a[name], b[name]) for a, b in zip(one, ranks, strict=True) for name in a)


def test_a_batch_names_the_shards_it_misses_and_why(folder):
    flip(folder / NAME)
    skipping = stream(folder, on_corrupt="skip")
    named = {}
    for update in range(skipping.windows_per_epoch // G):
        batch = skipping.batch(update * G, 0, 1, G, 0)
        assert bool(batch.missing) == (not batch.segments.any(axis=1).all())
        named |= batch.missing
    assert list(named) == [NAME]
    assert "key 000002-0000" in named[NAME]


def test_with_one_document_a_row_a_damaged_shard_is_skipped_alike(folder):
    whole = stream(folder, packing="documents")
    before = [whole.batch(update * G, 0, 1, G, 0) for update in range(8)]
    flip(folder / NAME)
    skipping = stream(folder, packing="documents", on_corrupt="skip")
    for one, update in zip(before, range(8), strict=True):
        other = skipping.batch(update * G, 0, 1, G, 0)
        there = other.segments.any(axis=1)
        assert np.array_equal(one.windows, other.windows)
        assert np.array_equal(one.input_ids[there], other.input_ids[there])
        assert bool(other.missing) == (not there.all())


def test_a_folder_that_is_gone_is_never_skipped(folder):
    reader = stream(folder, on_corrupt="skip")
    folder.rename(folder.with_name("unmounted"))
    with pytest.raises(DataError, match=r"expected the folder of train-\d+\.tar, got no folder; is its disk mounted") as error:
        reader.batch(0, 0, 1, G, 0)
    assert not isinstance(error.value, DamagedFile)


def test_a_shard_that_changes_after_it_was_verified_is_verified_again(folder):
    manifest = Manifest.load(folder)
    shelf = OpenShards(Location.of(folder), manifest, "train", capacity=1)
    shelf.shard(2)
    shelf.shard(0)  # the second is closed again
    flip(folder / NAME)
    with pytest.raises(DamagedFile, match=NAME):
        shelf.shard(2)


class Server(SimpleHTTPRequestHandler):
    """Serves a folder; `trouble` may answer a request in its own way first."""

    trouble: Callable[["Server", int], bool] = staticmethod(lambda handler, attempt: False)
    attempts: dict[str, int]

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self.attempts[self.path] = self.attempts.get(self.path, 0) + 1
        if not (self.path.endswith(f"/{NAME}") and type(self).trouble(self, self.attempts[self.path])):
            super().do_GET()


@pytest.fixture
def server(folder, tmp_path, monkeypatch) -> Iterator[type[Server]]:
    """The handler's class, with `address` and `cache`."""
    monkeypatch.setattr(download, "FIRST_WAIT_SECONDS", 0.001)
    monkeypatch.setattr(download, "TIMEOUT_SECONDS", 0.5)
    handler = type("Handler", (Server,), {"attempts": {}, "cache": str(tmp_path / "cache")})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as http:
        http.daemon_threads = True
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        handler.address = f"http://127.0.0.1:{http.server_address[1]}"
        yield handler
        http.shutdown()


def hang(handler: Server, attempt: int) -> bool:
    if attempt <= 2:
        time.sleep(1)
    return attempt <= 2


def trickle(handler: Server, attempt: int) -> bool:
    """Some bytes now and then: never silent, never done."""
    if attempt > 2:
        return False
    handler.send_response(200)
    handler.send_header("Content-Length", "100000")
    handler.end_headers()
    try:
        for _ in range(75):
            handler.wfile.write(b"x")
            handler.wfile.flush()
            time.sleep(0.02)
    except OSError:
        pass
    return True


def drop(handler: Server, attempt: int) -> bool:
    """The connection ends in the middle."""
    if attempt > 2:
        return False
    content = Path(handler.translate_path(handler.path)).read_bytes()
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content[: len(content) // 3])
    return True


def error_500(handler: Server, attempt: int) -> bool:
    if attempt <= 3:
        handler.send_error(500)
    return attempt <= 3


@pytest.mark.parametrize("trouble", [hang, trickle, drop, error_500])
def test_a_server_in_trouble_is_asked_again_and_the_stream_is_the_same(folder, server, trouble):
    server.trouble = staticmethod(trouble)
    remote = rows_of(stream(server.address, cache_folder=server.cache), 12)
    local = rows_of(stream(folder), 12)
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(remote, local, strict=True) for name in a)
    assert server.attempts[f"/{NAME}"] == (4 if trouble is error_500 else 3)


def test_a_server_that_stays_away_stops_the_reader_even_where_damage_is_skipped(server):
    def always(handler: Server, attempt: int) -> bool:
        handler.send_error(500)
        return True

    server.trouble = staticmethod(always)
    with pytest.raises(DataError, match=rf"{NAME}: expected a readable file, got HTTP Error 500.* in 8 attempts") as error:
        rows_of(stream(server.address, cache_folder=server.cache, on_corrupt="skip"), 30)
    assert not isinstance(error.value, DamagedFile)
    assert server.attempts[f"/{NAME}"] == 8


@pytest.mark.parametrize("damage", ["truncated", "flipped", "replaced"])
def test_a_remote_shard_that_changed_since_the_manifest_is_named_and_can_be_skipped(folder, server, damage):
    Manifest.load(server.address)
    DAMAGES[damage][0](folder / NAME)
    with pytest.raises(DamagedFile, match=DAMAGES[damage][1]):
        rows_of(stream(server.address, cache_folder=server.cache), 30)
    assert server.attempts[f"/{NAME}"] == 3
    remote = rows_of(stream(server.address, cache_folder=server.cache, on_corrupt="skip"), 12)
    local = rows_of(stream(folder, on_corrupt="skip"), 12)
    assert all(np.array_equal(a[name], b[name]) for a, b in zip(remote, local, strict=True) for name in a)
    assert not list(Path(server.cache).rglob(NAME)), "nothing that could be taken for the shard is left in the cache"


def test_a_server_that_sends_without_end_is_cut_off(server, monkeypatch):
    """What is longer than the manifest says is not read to its end."""
    sent = []

    def endless(handler: Server, attempt: int) -> bool:
        handler.send_response(200)
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(bytes(1 << 16))
                sent.append(1 << 16)
        except OSError:
            return True

    monkeypatch.setattr(download, "CHUNK_BYTES", 1 << 16)
    server.trouble = staticmethod(endless)
    with pytest.raises(DamagedFile, match=NAME):
        rows_of(stream(server.address, cache_folder=server.cache), 30)
    assert sum(sent) < 64 << 20


def test_credentials_and_queries_of_a_url_reach_the_server(folder, tmp_path):
    asked = []

    class Asking(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            asked.append((self.path, self.headers.get("Authorization")))
            super().do_GET()

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Asking, directory=str(folder))) as http:
        threading.Thread(target=http.serve_forever, args=(0.02,), daemon=True).start()
        Manifest.load(f"http://me:pa%3Ass@127.0.0.1:{http.server_address[1]}/?token=abc")
        http.shutdown()
    assert asked == [("/manifest.json?token=abc", "Basic bWU6cGE6c3M=")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 256 kB that can be made larger (remount) and read-only."""
    place = tmp_path / "disk"
    place.mkdir()
    if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)], check=False).returncode:
        pytest.skip("a small disk: needs root and the right to mount")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(disk)], check=True)


def test_a_full_disk_under_the_copies_of_remote_shards_is_said_at_once(folder, server, small_disk):
    with open(small_disk / "ballast", "wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(bytes(4096))
    with pytest.raises(DataError, match=r"No space left on device") as error:
        rows_of(stream(server.address, cache_folder=str(small_disk), on_corrupt="skip"), 30)
    assert not isinstance(error.value, DamagedFile), "a full disk says nothing about the shard"
    assert max(server.attempts.values()) == 1, "waiting does not help"
    (small_disk / "ballast").unlink()
    remount(small_disk, "size=8m")
    remote = rows_of(stream(server.address, cache_folder=str(small_disk)), 12)
    assert all(np.array_equal(a["input_ids"], b["input_ids"]) for a, b in zip(remote, rows_of(stream(folder), 12), strict=True))


def some_megabytes(folder: Path, wordpiece: Path) -> BuildSettings:
    """A corpus of several shards."""
    words = [f"{word}{number}" for number in range(40) for word in ("amber", "birch", "cedar")]
    lines = [" ".join(words[(start * 7 + step * step) % len(words)] for step in range(200)) for start in range(2000)]
    (folder / "text.txt").write_text("\n".join(lines))
    source = SourceSettings(path=str(folder / "text.txt"))
    return BuildSettings(sources=(source,), tokenizer=str(wordpiece), heldout=0.1, shard_tokens=60_000, block_tokens=20_000)


@pytest.mark.slow
def test_a_build_whose_quota_is_used_up_goes_on_where_it_was_when_there_is_more(quota, tmp_path, wordpiece):
    settings = some_megabytes(tmp_path, wordpiece)
    quota.limit("512k")
    said = r"expected room on the disk, got Disk quota exceeded; free some and build again \((\d+) finished"
    with pytest.raises(DataError, match=said) as error:
        build(settings, quota.folder / "shards", processes=1)
    finished = int(re.search(said, str(error.value))[1])
    durable = {path: path.stat().st_mtime_ns for path in sorted((quota.folder / "shards").glob("train-*.tar"))[:finished]}
    assert len(durable) == finished > 0
    quota.limit("32m")
    assert build(settings, quota.folder / "shards", processes=1) == build(settings, tmp_path / "undisturbed", processes=1)
    assert durable == {path: path.stat().st_mtime_ns for path in durable}


@pytest.mark.slow
def test_a_build_on_a_disk_that_fills_or_turns_read_only_goes_on_where_it_was(small_disk, tmp_path, wordpiece):
    """No stand-in: the operating system refuses, and the next call ends with the bytes of an undisturbed build."""
    settings = some_megabytes(tmp_path, wordpiece)
    undisturbed = build(settings, tmp_path / "undisturbed", processes=1)
    with pytest.raises(
        DataError, match=r"expected room on the disk, got No space left on device; free some and build again \(\d+ finished"
    ):
        build(settings, small_disk / "shards", processes=1)
    durable = {path.name: path.stat().st_mtime_ns for path in (small_disk / "shards").glob("*.tar")}
    assert durable
    remount(small_disk, "ro")
    with pytest.raises(DataError, match="Read-only file system"):
        build(settings, small_disk / "shards", processes=1)
    remount(small_disk, "rw,size=32m")
    assert build(settings, small_disk / "shards", processes=1) == undisturbed
    assert durable.items() <= {path.name: path.stat().st_mtime_ns for path in (small_disk / "shards").glob("*.tar")}.items()
    for path in (tmp_path / "undisturbed").glob("*.*"):
        assert (small_disk / "shards" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_a_build_whose_folder_vanishes_is_one_line(tmp_path, wordpiece, texts):
    (tmp_path / "text.txt").write_text("\n".join(texts * 20))
    source = SourceSettings(path=str(tmp_path / "text.txt"))
    settings = BuildSettings(sources=(source,), tokenizer=str(wordpiece), shard_tokens=4000, block_tokens=1000)
    gone = []

    def vanish(progress: object) -> None:
        if not gone:
            gone.append((tmp_path / "shards").rename(tmp_path / "aside"))

    with pytest.raises(DataError, match=r"shards: expected a folder that can be written, got .*No such file or directory"):
        build(settings, tmp_path / "shards", processes=1, progress=vanish)
