"""Each run leaves report.html in its folder; a page that cannot be written is an event. A killed run has a page on request."""

import signal
from pathlib import Path

import pytest
from run_lines import lines

from launcher.run_page.record import read_run
from launcher.run_page.write import write_page

pytestmark = pytest.mark.slow


def test_a_run_leaves_its_page_with_the_manifest_of_its_data(start, tmp_path: Path):
    run = start(tmp_path / "run")
    assert run.wait() == [0], run.output
    text = (tmp_path / "run" / "report.html").read_text()
    for words in (
        '<p class="state">done</p>',
        "Term soft_targets, unweighted",
        "Held-out top-1",
        "documents, ",
        "fingerprint ",
        "finished",
    ):
        assert words in text, words
    assert "manifest of the data" not in text
    assert not [line for line in lines(tmp_path / "run", "event") if line["event"] == "page_failed"]


def test_a_page_that_cannot_be_written_is_an_event_and_the_run_ends_well(start, tmp_path: Path):
    run = start(tmp_path / "run", "train.updates=100", "report.every_updates=1")
    run.wait_for_update(1)
    (tmp_path / "run" / "report.html").mkdir()
    assert run.wait() == [0], run.output
    (event,) = [line for line in lines(tmp_path / "run", "event") if line["event"] == "page_failed"]
    assert event["message"].startswith("report.html not written (")


def test_a_killed_run_and_a_running_one_have_a_page_that_says_so(start, tmp_path: Path):
    run = start(tmp_path / "run", "train.updates=5000")
    run.wait_for_update(4)
    assert read_run(tmp_path / "run").state.kind == "running"
    run.signal(signal.SIGKILL)
    run.wait()
    write_page([tmp_path / "run"], tmp_path / "out.html")
    assert "without a final event" in (tmp_path / "out.html").read_text()
