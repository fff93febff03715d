"""The steps of a start are lines, before they are done."""

import pytest

from launcher.process import steps
from launcher.process.steps import step


def test_a_step_is_named_before_it_is_done_and_timed_where_it_takes_long(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], no_rank: None
):
    with step("reading"):
        assert capsys.readouterr().out == "reading …\n"
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(steps, "SHOWN_SECONDS", 0.0)
    with step("building"):
        pass
    assert capsys.readouterr().out == "building …\nbuilding: 0.0 s\n"


def test_other_ranks_say_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    monkeypatch.setenv("RANK", "1")
    with step("reading"):
        pass
    assert capsys.readouterr().out == ""
