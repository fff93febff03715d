"""The page of runs in headless Chromium: it asks for nothing, logs nothing, fits the window, and prints on A4."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import CHROMIUM, Proxy, asked, browse, console, noting_proxy, paper, widths
from run_folders import HOSTILE, LINES, event, make_run

from launcher.run_page.write import write_page

pytestmark = [
    pytest.mark.tasks,
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="the page in a browser: needs Chromium (Debian's package chromium)"),
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    one = make_run(folder / "one", lines=[*LINES, event(100, "note", HOSTILE)])
    two = make_run(folder / "two", f"run.name={HOSTILE}", "optimizer.learning_rate=2e-3")
    (two / "layer_maps.txt").write_text(" 0   0.91*  0.25 \n 1   0.10   0.83*\n")
    guesses = [["word", 0.5], ["w" * 90, 0.25]]
    line = {"id": "window 1, token 2", "text": f"{'word ' * 40}[MASK]", "label": "word", "prediction": "word", "update": 9}
    (one / "samples.jsonl").write_text(json.dumps(line | {"student": guesses, "teacher": guesses}) + "\n")
    write_page([one, two], folder / "report.html")
    return folder / "report.html"


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    with noting_proxy() as server:
        yield server


def test_the_page_asks_for_nothing_and_its_console_is_empty(tmp_path: Path, made: Path, proxy: Proxy):
    told = browse(tmp_path, proxy, made, "--virtual-time-budget=2000", "--dump-dom")
    assert asked(proxy) == []
    assert console(told) == []
    assert "<h1>2 runs: one, " in told.stdout
    assert "<script" not in told.stdout


@pytest.mark.parametrize("width", [400, 1280])
def test_nothing_is_wider_than_the_window(tmp_path: Path, made: Path, proxy: Proxy, width: int):
    content, window = widths(tmp_path, proxy, made, width)
    assert content == window


def test_it_prints_on_a4(tmp_path: Path, made: Path, proxy: Proxy):
    assert paper(tmp_path, proxy, made) <= {(595, 842), (596, 842), (595, 841)}
