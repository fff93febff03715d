"""`stillhouse report`: where the page goes, and mistakes as one line; a page that fails at the end of a run costs nothing."""

import threading
import time
from pathlib import Path

import pytest
from run_folders import make_run

from launcher.cli import main
from launcher.run_page import write
from launcher.run_page.write import write_at_end


def stillhouse(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr("sys.argv", ["stillhouse", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_the_page_goes_into_the_run_or_where_it_is_asked_to(tmp_path: Path, monkeypatch, capsys):
    one, two = (str(make_run(tmp_path / name)) for name in ("one", "two"))
    monkeypatch.chdir(tmp_path)
    for words, place in (([one], f"{one}/report.html"), ([one, two], "report.html"), ([one, "--out", "x.html"], "x.html")):
        assert stillhouse(monkeypatch, "report", *words) == 0
        assert capsys.readouterr().out == f"{place}\n"
        assert Path(place).read_text().startswith("<!doctype html>")


def test_mistakes_are_one_line(tmp_path: Path, monkeypatch, capsys):
    one = str(make_run(tmp_path / "one"))
    for words, said in (
        ([str(tmp_path)], "expected a run folder with config.yaml, got none; check the path"),
        ([one, "--out", str(tmp_path / "absent" / "x.html")], "expected to write the page, got No such file or directory"),
        ([one] * 9, "expected at most 8 runs, got 9; leave some out"),
    ):
        assert stillhouse(monkeypatch, "report", *words) == 2
        error = capsys.readouterr().err
        assert said in error
        assert error.count("\n") == 1


def test_a_page_that_cannot_be_written_at_the_end_is_one_sentence(tmp_path: Path):
    folder = make_run(tmp_path / "run")
    (folder / "report.html").mkdir()
    said: list[str] = []
    write_at_end(folder, said.append)
    assert len(said) == 1
    assert said[0].startswith("report.html not written (")
    assert said[0].endswith(f"; `stillhouse report {folder}` writes it")


def test_a_page_that_takes_too_long_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    release = threading.Event()
    monkeypatch.setattr(write, "FINISH_SECONDS", 0.2)
    monkeypatch.setattr(write, "page", lambda records: release.wait(20) and "")
    said: list[str] = []
    began = time.monotonic()
    write_at_end(make_run(tmp_path / "run"), said.append)
    release.set()
    assert time.monotonic() - began < 5
    assert "expected it within 0.2 s, got nothing" in said[0]
