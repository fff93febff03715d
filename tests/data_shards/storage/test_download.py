"""Requests that fail: those that can succeed later are repeated, the others are one line at once."""

import threading
from collections import Counter
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from data_shards.errors import DataError
from data_shards.storage import download
from data_shards.storage.manifest import Manifest


class Hopeless(SimpleHTTPRequestHandler):
    """Fails in a way that waiting does not change; the first folder of the path says in which."""

    requests: Counter

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.requests[self.path] += 1
        kind = self.path.split("/")[1]
        if kind == "early":
            return
        self.send_response(302 if kind in ("loop", "file", "port") else int(kind) if kind.isdecimal() else 200)
        if kind in ("loop", "file", "port"):
            self.send_header("Location", {"loop": self.path, "file": "file:///etc/passwd", "port": "http://127.0.0.1:port/a"}[kind])
        if kind == "header":
            self.send_header("X-Long", "a" * 70_000)
        if kind == "headers":
            for number in range(150):
                self.send_header(f"X-{number}", "a")
        self.send_header("Content-Length", "0")
        self.end_headers()


@pytest.fixture
def hopeless(monkeypatch):
    """(address, requests by path)."""
    monkeypatch.setattr(download, "FIRST_WAIT_SECONDS", 0.001)
    handler = type("Handler", (Hopeless,), {"requests": Counter()})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.05,), daemon=True).start()
        yield f"http://127.0.0.1:{http.server_address[1]}", handler.requests
        http.shutdown()


@pytest.mark.parametrize(
    ("kind", "cause"),
    [
        ("loop", "infinite loop"),
        ("file", "not allowed"),
        ("port", "nonnumeric port"),
        ("header", "got more than 65536 bytes when reading header line"),
        ("headers", "got more than 100 headers"),
        *((code, f"HTTP Error {code}") for code in ("400", "401", "403", "405", "406", "414", "451", "501")),
    ],
)
def test_a_failure_that_waiting_cannot_end_is_said_at_once(hopeless, kind, cause):
    address, requests = hopeless
    with pytest.raises(DataError, match=rf"/{kind}/manifest\.json: expected a readable file, got .*{cause}.*; check the place"):
        Manifest.load(f"{address}/{kind}")
    assert requests[f"/{kind}/manifest.json"] == (5 if kind == "loop" else 1), "urllib itself follows a redirect four times"


@pytest.mark.parametrize("kind", ["408", "429", "500", "503", "early"])
def test_a_failure_that_may_end_is_tried_again(hopeless, kind):
    address, requests = hopeless
    with pytest.raises(DataError, match="in 8 attempts; check the network"):
        Manifest.load(f"{address}/{kind}")
    assert requests[f"/{kind}/manifest.json"] == 8


@pytest.mark.parametrize("url", ["http://127.0.0.1:port/a", "http://127.0.0.1:99999/a", "http://me:s3/cr3t@127.0.0.1/a"])
def test_a_bad_port_is_said_at_once_without_its_text(url, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda _: pytest.fail("waited"))
    with pytest.raises(DataError, match=r"got a port that is no number from 0 to 65535 \(write / in a password as %2F\); ") as error:
        Manifest.load(url)
    assert str(error.value).count("cr3t") == url.count("cr3t"), "the place alone, which is printed without its password"
