"""Remote folders: copied once, whole or not at all, through a server that fails now and then."""

import threading
from collections import Counter
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import fsspec
import numpy as np
import pytest

from data_shards.errors import DataError
from data_shards.info import info
from data_shards.storage import download
from data_shards.storage.location import Location
from data_shards.storage.manifest import Manifest
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from data_shards.verify import verify
from stillhouse.files import write_atomically


class Flaky(SimpleHTTPRequestHandler):
    """Fails the first requests for each path: 503, then half of the bytes, then it serves."""

    requests: Counter
    failures: int

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.requests[self.path] += 1
        attempt = self.requests[self.path]
        if attempt > self.failures:
            super().do_GET()
        elif attempt % 2:
            self.send_error(503)
        else:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])


@pytest.fixture
def server(shards, monkeypatch):
    """(address, requests by path, how often each path fails first)."""
    monkeypatch.setattr(download, "FIRST_WAIT_SECONDS", 0.001)
    handler = type("Handler", (Flaky,), {"requests": Counter(), "failures": 0})
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(shards))) as http:
        threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}", handler
        http.shutdown()


SETTINGS = {"window_tokens": 16, "lanes": 2}


def test_a_stream_over_a_flaky_server_equals_the_local_one(server, shards, tmp_path):
    address, handler = server
    handler.failures = 2
    remote = Stream(address, "train", StreamSettings(**SETTINGS, cache_folder=str(tmp_path)), 16)
    local = Stream(shards, "train", StreamSettings(**SETTINGS), 16)
    assert remote.fingerprint == local.fingerprint
    for n in range(6):
        one, other = remote.batch(16 * n, 0, 1, 16, 0), local.batch(16 * n, 0, 1, 16, 0)
        assert np.array_equal(one.input_ids, other.input_ids)
    assert {handler.requests[path] for path in handler.requests if path.endswith(".tar")} == {3}
    before = sum(handler.requests[path] for path in handler.requests if path.endswith(".tar"))
    again = Stream(address, "train", StreamSettings(**SETTINGS, cache_folder=str(tmp_path)), 16)
    again.batch(0, 0, 1, 16, 0)
    assert sum(handler.requests[path] for path in handler.requests if path.endswith(".tar")) == before, "the copies are used again"


def test_only_the_shards_that_are_needed_are_copied(server, tmp_path):
    address, handler = server
    stream = Stream(address, "train", StreamSettings(window_tokens=16, lanes=1, cache_folder=str(tmp_path)), 4)
    stream.batch(100, 0, 1, 4, 0)
    assert sum(path.endswith(".tar") for path in handler.requests) <= 2 < len(Manifest.load(address).entries("train"))


def test_verify_and_info_read_a_remote_folder(server, shards, tmp_path):
    address, _ = server
    assert verify(address, tmp_path) == verify(shards)
    assert info(address, cache_folder=tmp_path) == info(shards)


def test_a_copy_that_was_altered_is_fetched_anew(server, tmp_path):
    address, _ = server
    settings = StreamSettings(**SETTINGS, cache_folder=str(tmp_path))
    expected = Stream(address, "train", settings, 16).batch(0, 0, 1, 16, 0)
    for copy in tmp_path.rglob("*.tar"):
        content = bytearray(copy.read_bytes())
        content[700] ^= 1
        copy.write_bytes(content)
    assert np.array_equal(Stream(address, "train", settings, 16).batch(0, 0, 1, 16, 0).input_ids, expected.input_ids)


def test_a_server_that_keeps_failing_is_one_line(server, tmp_path):
    address, handler = server
    handler.failures = 99
    with pytest.raises(DataError, match=r"manifest\.json: expected a readable file, got .* in 8 attempts; check the network") as error:
        Manifest.load(address)
    assert "\n" not in str(error.value)


def test_a_missing_remote_file_is_not_asked_for_twice(server):
    address, handler = server
    with pytest.raises(DataError, match="got HTTP Error 404: File not found; check the place"):
        Manifest.load(f"{address}/absent")
    assert handler.requests["/absent/manifest.json"] == 1


def test_a_remote_folder_needs_a_cache_folder(server):
    address, _ = server
    with pytest.raises(DataError, match=r"expected a cache folder for the copies of remote shards, got none; set data\.cache_folder"):
        Stream(address, "train", StreamSettings(**SETTINGS), 16)


def test_other_protocols_go_through_fsspec(shards, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.put(str(shards), "/corpus", recursive=True)
    remote = Stream("memory://corpus", "train", StreamSettings(**SETTINGS, cache_folder=str(tmp_path)), 16)
    local = Stream(shards, "train", StreamSettings(**SETTINGS), 16)
    assert np.array_equal(remote.batch(0, 0, 1, 16, 0).input_ids, local.batch(0, 0, 1, 16, 0).input_ids)


def test_a_cache_folder_that_cannot_be_written_is_one_line(server, tmp_path):
    address, _ = server
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="expected a cache folder that can be written"):
        Stream(address, "train", StreamSettings(**SETTINGS, cache_folder=str(tmp_path / "file")), 16)


def test_a_file_is_replaced_whole(tmp_path):
    write_atomically(tmp_path / "a", b"one")
    write_atomically(tmp_path / "a", b"two")
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("a", b"two")]


def test_a_path_and_a_file_url_are_the_same_place():
    assert Location.of("file:///some/folder/") == Location.of("/some/folder")
    assert not Location.of("/some/folder").is_remote
    assert Location.of("s3://bucket/folder").is_remote
