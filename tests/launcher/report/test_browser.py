"""The page in headless Chromium: it asks for nothing, logs nothing, runs nothing, and prints on A4."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, SERVICES, Proxy, asked, browse, console, noting_proxy, paper, widths
from report_results import write_results

from launcher.report.write import write_report

pytestmark = [
    pytest.mark.tasks,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="the page in a browser: needs Chromium (Debian's package chromium)"),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    write_report(write_results(folder, ("SST-2", "STS-B"), pretrained=True), folder)
    return folder / "report.html"


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with noting_proxy() as server:
        yield server


def test_the_page_asks_for_nothing_and_its_console_is_empty(tmp_path: Path, report: Path, proxy: Proxy):
    told = browse(tmp_path, proxy, report, "--virtual-time-budget=2000", "--dump-dom")
    assert asked(proxy) == []
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
    content, window = widths(tmp_path, proxy, report, width)
    assert content == window


def test_it_prints_on_a4(tmp_path: Path, report: Path, proxy: Proxy):
    assert paper(tmp_path, proxy, report) <= {(595, 842), (596, 842), (595, 841)}
