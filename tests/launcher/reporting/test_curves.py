"""`stillhouse plot`: one picture of one run or several, from metrics.jsonl."""

import json
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from launcher.cli import main
from launcher.reporting import curves
from launcher.reporting.curves import picture

PNG = b"\x89PNG\r\n\x1a\n"
LINES = [
    {"kind": "event", "update": 0, "event": "started", "message": ""},
    *(
        {"kind": "train", "update": n, "loss": 3.0 / n, "loss/mlm": 2.0 / n, "learning_rate": 1e-3, "tokens_per_second": 100.0 + n}
        for n in (1, 2, 3)
    ),
    {"kind": "heldout", "update": 3, "heldout_loss": 2.5, "heldout_top1": 0.25, "heldout_top5": 0.5},
    {"kind": "train", "update": 4, "loss": None, "learning_rate": 5e-4, "tokens_per_second": 99.0},
]


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    return [str(tmp_path / name) for name in ("a", "b")]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are made."""
    made: list[Figure] = []
    monkeypatch.setattr(curves, "Figure", lambda **words: made.append(Figure(**words)) or made[-1])
    return made


def points(figure: Figure) -> dict[tuple[str, str], list[tuple[float, float]]]:
    """(title of the panel, label of the curve) -> its points."""
    return {
        (panel.get_title(), line.get_label()): [(x, float(y)) for x, y in line.get_xydata()]
        for panel in figure.axes
        for line in panel.lines
    }


def test_each_term_score_rate_and_throughput_of_a_run_is_a_curve(drawn):
    assert picture({"run": LINES}).startswith(PNG)
    found = points(drawn[0])
    assert found["training loss", "weighted sum"] == [(1, 3.0), (2, 1.5), (3, 1.0), (3, 1.0)], "a number that is not finite is left out"
    assert found["training loss", "mlm"][0] == (1, 2.0)
    assert found["held-out scores", "loss"][-1] == (3, 2.5)
    assert {label: at[-1][1] for (_, label), at in found.items() if label.startswith("top")} == {"top-1": 0.25, "top-5": 0.5}
    assert found["learning rate", "run"][-1] == (4, 5e-4)
    assert found["tokens/s", "run"][-1] == (4, 99.0)


def test_a_run_without_a_finite_loss_is_drawn_too():
    assert picture({"run": [{"kind": "train", "update": 1, "loss": None, "learning_rate": 1e-3, "tokens_per_second": 9.0}]}).startswith(PNG)


def test_several_runs_are_drawn_over_each_other_under_their_names(drawn):
    picture({"a": LINES, "b": LINES})
    found = points(drawn[0])
    assert {label for panel, label in found if panel == "learning rate"} == {"a", "b"}
    assert ("training loss", "a: mlm") in found
    assert ("training loss", "b: weighted sum") in found


def test_a_long_run_has_a_bounded_number_of_points_and_its_last(drawn):
    picture({"run": [{"kind": "train", "update": n, "loss": float(n)} for n in range(1, 10_001)]})
    curve = points(drawn[0])["training loss", "weighted sum"]
    assert len(curve) <= curves.MOST_POINTS + 1
    assert curve[-1] == (10_000, 10_000.0)


def test_the_verb_writes_the_picture_into_the_run_or_where_it_is_asked_to(runs, tmp_path, monkeypatch, capsys):
    for words, place in (([runs[0]], Path(runs[0]) / "curves.png"), ([*runs, "--out", str(tmp_path / "c.png")], tmp_path / "c.png")):
        monkeypatch.setattr("sys.argv", ["stillhouse", "plot", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        assert capsys.readouterr().out == f"{place}\n"
        assert place.read_bytes().startswith(PNG)


def test_what_cannot_be_drawn_is_one_line(runs, tmp_path, monkeypatch, capsys):
    (tmp_path / "empty").mkdir()
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "metrics.jsonl").write_text(json.dumps(LINES[0]) + "\n")
    for words, said in (
        (["empty"], "expected a run folder with metrics.jsonl, got none; check the path"),
        (["new"], "expected a train line in metrics.jsonl, got none; wait for the first report"),
        ([runs[0], "--out", "c.svg"], "--out: expected a name that ends in .png, got c.svg; correct it"),
        ([runs[0], "--out", "absent/c.png"], "expected to write the picture, got No such file or directory; choose another --out"),
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["stillhouse", "plot", *words])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2
        err = capsys.readouterr().err
        assert said in err
        assert err.count("\n") == 1
