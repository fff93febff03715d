"""curves.png appears while a run goes on and is whole at each moment; what goes wrong with it is one line and stops nothing."""

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from rich.console import Console

from launcher.config.run_config import ReportSettings
from launcher.reporting import curves, live_curves
from launcher.reporting.reporters import Reporters

PNG, END = b"\x89PNG\r\n\x1a\n", b"IEND\xaeB`\x82"


def train(update: int) -> dict[str, object]:
    values = {"kind": "train", "update": update, "updates": 20, "tokens": 100 * update, "tokens_total": 2000, "epoch": 0.25, "loss": 2.0}
    values |= {"loss/mlm": 3.5, "learning_rate": 5e-4, "gradient_norm": 1.25, "tokens_per_second": 1234.5, "seconds_left": 1.0}
    return values | {"data_wait_share": 0.015, "memory_gb": 0.75, "skipped_updates": 0}


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "expected it to happen in time"
        time.sleep(0.02)


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], tuple[Reporters, io.StringIO]]:
    """opened(): the reports of a run in tmp_path, and what they print."""

    def make() -> tuple[Reporters, io.StringIO]:
        screen = io.StringIO()
        console = Console(file=screen, width=120)
        return Reporters(ReportSettings(), tmp_path, name="run", config={}, run_id="abcd1234", console=console), screen

    return make


def test_the_picture_is_there_while_the_run_goes_on_and_new_at_its_end(opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_curves, "EVERY_SECONDS", 0.0)
    drawn = []
    monkeypatch.setattr(curves, "picture", lambda runs: drawn.append(len(runs[tmp_path.name])) or PNG + str(len(drawn)).encode() + END)
    report, _ = opened()
    report.line(train(1))
    wait_for((tmp_path / "curves.png").exists)
    assert (tmp_path / "curves.png").read_bytes() == PNG + b"1" + END
    report.line(train(2))
    report.close()
    assert drawn[-1] == 2, "the last picture has every line"
    assert (tmp_path / "curves.png").read_bytes() == PNG + str(len(drawn)).encode() + END
    assert not list(tmp_path.glob(".*"))


def test_a_real_picture_of_a_short_run_is_drawn_at_its_end(opened, tmp_path: Path):
    report, screen = opened()
    report.line(train(1))
    report.close()
    content = (tmp_path / "curves.png").read_bytes()
    assert content.startswith(PNG)
    assert content.endswith(END)
    assert screen.getvalue().count("\n") == 1, "the train line alone"


def test_a_run_without_a_train_line_gets_no_picture(opened, tmp_path: Path):
    report, screen = opened()
    report.close()
    assert not (tmp_path / "curves.png").exists()
    assert screen.getvalue() == ""


def test_pictures_are_not_drawn_more_often_than_every_so_many_seconds_or_a_share_of_the_time(
    opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    drawn = []
    monkeypatch.setattr(curves, "picture", lambda runs: time.sleep(0.05) or drawn.append(time.monotonic()) or PNG)
    monkeypatch.setattr(live_curves, "EVERY_SECONDS", 0.1)
    monkeypatch.setattr(live_curves, "MOST_SHARE", 0.1)  # 0.05 s of drawing: the next half a second later
    report, _ = opened()
    end = time.monotonic() + 1.6
    update = 0
    while time.monotonic() < end:
        report.line(train(update := update + 1))
        time.sleep(0.01)
    assert 1 <= len(drawn) <= 3
    assert all(later - earlier >= 0.5 for earlier, later in pairwise(drawn))
    report.close()


def test_a_picture_that_cannot_be_written_is_one_line(opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_curves, "EVERY_SECONDS", 0.0)
    (tmp_path / "curves.png").mkdir()
    report, screen = opened()
    report.line(train(1))
    wait_for(lambda: "curves.png" in screen.getvalue())
    report.line(train(2))
    report.close()
    (line,) = [line for line in screen.getvalue().splitlines() if "curves.png" in line]
    assert line.startswith("curves.png: [Errno 21] Is a directory: ")
    assert line.endswith("; the run goes on, metrics.jsonl has every number")


def test_without_matplotlib_there_is_one_line_and_no_picture(opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    monkeypatch.delitem(sys.modules, "launcher.reporting.curves")
    monkeypatch.delattr("launcher.reporting.curves")
    report, screen = opened()
    report.line(train(1))
    report.close()
    assert screen.getvalue().splitlines()[1] == (
        "curves.png: import of matplotlib.axes halted; None in sys.modules; the run goes on, metrics.jsonl has every number"
    )
    assert not (tmp_path / "curves.png").exists()


def test_a_drawing_that_hangs_is_not_waited_for(opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(live_curves, "FINISH_SECONDS", 0.3)
    ended = threading.Event()
    monkeypatch.setattr(curves, "picture", lambda runs: ended.wait(30) and PNG)
    report, screen = opened()
    report.line(train(1))
    began = time.monotonic()
    report.close()
    assert time.monotonic() - began < 5
    assert "curves.png: expected it to be drawn within 0.3 s" in screen.getvalue()
    ended.set()


def test_a_start_does_not_import_matplotlib(tmp_path: Path):
    code = (
        "import sys, pathlib\nfrom launcher.config.run_config import ReportSettings\nfrom launcher.reporting.reporters import Reporters\n"
        f"made = Reporters(ReportSettings(), pathlib.Path({str(tmp_path)!r}), name='n', config={{}}, run_id='abcd1234')\n"
        f"made.line({train(1)})\nassert 'matplotlib' not in sys.modules\nmade.close()\nassert 'matplotlib' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3], capture_output=True)
    assert (tmp_path / "curves.png").exists()
