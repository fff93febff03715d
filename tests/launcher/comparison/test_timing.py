"""The pace of variants: a rule that other work on the machine can hardly move, and a file that is measured once."""

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from launcher.comparison import timing
from launcher.comparison.settings import Comparison, plan
from launcher.errors import LaunchError

MEASURES = """
import json, pathlib, sys
path = pathlib.Path(sys.argv[1])
asked = json.loads(path.read_text())
with (path.parent / "measured.txt").open("a") as file:
    file.write(",".join(asked) + "\\n")
path.write_text(json.dumps({name: 0.5 if name == "a" else 1.0 for name in asked}))
"""


@pytest.fixture
def runs(corpus, tmp_path: Path):
    """runs(names): one planned run of each of so many variants."""

    def make(names: str):
        variants = {name: [f"train.clip={number}.5"] for number, name in enumerate(names, start=1)}
        settings = [f"data.shards={corpus.shards}", f"teacher.model={corpus.model}"]
        made = Comparison(base="tiny", settings=settings, seeds=[1], seconds=4.0, variants=variants)
        return plan(made, "x", tmp_path, "time", [])

    return make


def test_the_lower_quartile_is_not_moved_by_what_makes_some_updates_slow():
    assert timing.lower_quartile([1.0, 1.0, 1.0, 1.0]) == 1.0
    assert timing.lower_quartile([1.0, 1.0, 1.0, 90.0]) == 1.0
    assert timing.lower_quartile([1.0, 2.0, 3.0, 4.0, 5.0]) == 2.0
    assert timing.lower_quartile([7.0]) == 7.0


def test_variants_are_measured_once_and_later_ones_beside_the_reference(runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "measures.py"
    script.write_text(MEASURES, encoding="utf-8")
    monkeypatch.setattr(timing, "COMMAND", (str(script),))
    console = Console(file=io.StringIO())
    assert timing.measure(tmp_path, runs("ab"), "a", 1, 4.0, console) == {"a": 0.5, "b": 1.0}
    assert timing.measure(tmp_path, runs("ab"), "a", 1, 4.0, console) == {"a": 0.5, "b": 1.0}
    kept = json.loads((tmp_path / "pace.json").read_text())
    kept["seconds_per_update"]["a"] = 0.25  # as if the machine had been twice as fast then
    (tmp_path / "pace.json").write_text(json.dumps(kept))
    assert timing.measure(tmp_path, runs("abc"), "a", 1, 4.0, console) == {"a": 0.25, "b": 1.0, "c": 0.5}
    assert (tmp_path / "measured.txt").read_text().splitlines() == ["a,b", "a,c"]
    assert timing.known(tmp_path) == {"a": 0.25, "b": 1.0, "c": 0.5}


def test_another_budget_or_number_of_ranks_is_another_comparison(runs, tmp_path: Path):
    (tmp_path / "pace.json").write_text(json.dumps({"seconds": 4.0, "ranks": 1, "seconds_per_update": {"a": 1.0, "b": 1.0}}))
    for ranks, seconds in ((1, 5.0), (2, 4.0)):
        with pytest.raises(LaunchError, match=f"expected the budget of 4 seconds on 1 ranks that it was measured for, got {seconds:g} on"):
            timing.measure(tmp_path, runs("ab"), "a", ranks, seconds, Console(file=io.StringIO()))


def test_a_measurement_that_fails_is_one_line(runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    script = tmp_path / "fails.py"
    script.write_text("import sys; sys.exit(3)", encoding="utf-8")
    monkeypatch.setattr(timing, "COMMAND", (str(script),))
    with pytest.raises(LaunchError, match=r"expected to measure the variants' pace, got exit code 3; .*pace\.txt says why"):
        timing.measure(tmp_path, runs("ab"), "a", 1, 4.0, Console(file=io.StringIO()))
    assert not (tmp_path / "pace.json").exists()
