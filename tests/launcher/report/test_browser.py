"""The page in headless Chromium: it asks for nothing, logs nothing, runs nothing, and prints on A4."""

import re
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from report_results import write_results

from launcher.report.write import write_report

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)
pytestmark = [
    pytest.mark.tasks,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="the page in a browser: needs Chromium (Debian's package chromium)"),
]
QUIET = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run", "--disable-extensions")
SERVICES = re.compile(
    r"(CONNECT |:\/\/)(update.googleapis|clients\d.google|accounts.google|optimizationguide-pa.googleapis|edgedl.me.gvt1).com"
)
"""Chromium itself asks these hosts, whatever page is open. The page names none of them."""


class Proxy(socketserver.ThreadingTCPServer):
    """Notes the first line of every request that a browser sends anywhere."""

    daemon_threads = True

    def __init__(self) -> None:
        self.requests: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        assert isinstance(self.server, Proxy)
        self.server.requests.append(self.rfile.readline(500).decode("latin-1").strip())


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(write_results(folder, ("SST-2", "STS-B"), pretrained=True), folder)
    return folder / "report.html"


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with Proxy() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def browse(profile: Path, proxy: Proxy, page: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Open a page with every request sent to the proxy, and the console on standard error."""
    assert CHROMIUM is not None
    route = f"--proxy-server=http://127.0.0.1:{proxy.server_address[1]}"
    base = (CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--enable-logging=stderr")
    return subprocess.run([*base, *QUIET, route, *flags, page.as_uri()], capture_output=True, text=True, timeout=120, check=True)


def console(told: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in told.stderr.splitlines() if "CONSOLE" in line]


def test_the_page_asks_for_nothing_and_its_console_is_empty(tmp_path: Path, report: Path, proxy: Proxy):
    told = browse(tmp_path, proxy, report, "--virtual-time-budget=2000", "--dump-dom")
    assert [line for line in proxy.requests if not SERVICES.search(line)] == []
    assert not SERVICES.search(told.stdout)
    assert console(told) == []
    assert "<h1>Retention of a 6 x 384 encoder</h1>" in told.stdout
    assert "<script" not in told.stdout
    assert not re.search(r"<[^>]+\sonerror=", told.stdout)


def test_a_page_with_a_request_and_an_error_would_be_noticed(tmp_path: Path, proxy: Proxy):
    bad = tmp_path / "bad.html"
    bad.write_text("<!doctype html><img src='http://example.invalid/x.png'><script>console.error('bad')</script>")
    told = browse(tmp_path / "profile", proxy, bad, "--virtual-time-budget=2000", "--dump-dom")
    assert any("example.invalid" in line for line in proxy.requests)
    assert any("bad" in line for line in console(told))


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(tmp_path: Path, report: Path, proxy: Proxy, width: int):
    """Only tables in their scrolling regions are wider. The copy without a policy runs the script that measures."""
    measure = "document.title = document.documentElement.scrollWidth + ' of ' + document.documentElement.clientWidth"
    inner = tmp_path / "inner.html"
    text = report.read_text(encoding="utf-8").replace("default-src 'none'", "default-src 'unsafe-inline'")
    inner.write_text(
        text.replace("</body>", f"<script>{measure}; parent.postMessage(document.title, '*')</script></body>"), encoding="utf-8"
    )
    outer = tmp_path / "outer.html"
    answer = "<script>onmessage = event => document.body.dataset.width = event.data</script>"
    outer.write_text(f"<!doctype html><body>{answer}<iframe src='inner.html' style='width:{width}px;height:900px;border:0'></iframe>")
    told = browse(tmp_path / "profile", proxy, outer, "--virtual-time-budget=2000", "--dump-dom")
    found = re.search(r'data-width="(\d+) of (\d+)"', told.stdout)
    assert found, told.stderr[-2000:]
    assert found[1] == found[2]


def test_it_prints_on_a4(tmp_path: Path, report: Path, proxy: Proxy):
    pdf = tmp_path / "report.pdf"
    browse(tmp_path / "profile", proxy, report, f"--print-to-pdf={pdf}", "--no-pdf-header-footer")
    boxes = re.findall(rb"/MediaBox\s*\[\s*0 0 ([\d.]+) ([\d.]+)", pdf.read_bytes())
    assert boxes
    assert {(round(float(wide)), round(float(high))) for wide, high in boxes} <= {(595, 842), (596, 842), (595, 841)}
