"""What a comparison says of rows whose means and differences are known by hand, on the console, as JSON, CSV and picture."""

import csv
import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from launcher.comparison import plots, results
from launcher.comparison.results import Results


def row(variant: str, seed: int, loss: float, **more: object) -> dict[str, object]:
    own = {"variant": variant, "seed": seed, "loss": loss, "top1": 0.25, "retention": 0.5, "agreement": 0.4, "kl": 1.0}
    cost = {"trained_tokens": 5000, "learning_seconds": 2.0, "wall_seconds": 3.0, "tokens_per_second": 2500.0, "memory_gb": 0.5}
    table = {"similarity": [[0.2, 0.4], [0.6, 0.8]], "similarity_last": 0.8, "parameters": 1000, "bytes": 4000, "updates": 20}
    return own | cost | table | more


ROWS = [
    *(row("plain", seed, loss) for seed, loss in ((1, 5.0), (2, 6.0), (3, 7.0))),
    *(row("same", seed, loss) for seed, loss in ((1, 5.5), (2, 5.5), (3, 7.0))),
    *(row("better", seed, loss, similarity=[[1.0, 0.0], [0.0, 1.0]]) for seed, loss in ((1, 4.89), (2, 5.90), (3, 6.88))),
]
FOUND = Results("x", "tokens", "plain", ["plain", "same", "better"], ROWS, {})


def shown(*tables: object) -> str:
    console = Console(width=80, file=io.StringIO())
    for table in tables:
        console.print(table)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_verdicts_follow_the_rule_and_say_it():
    same, better, rule = results.verdicts(FOUND)
    assert same == "same: within the noise (+0.000 ± 1.242 nats)"
    # differences -0.11, -0.10, -0.12: mean -0.11, deviation 0.01, margin 4.3027 x 0.01 / sqrt(3) = 0.0248
    assert better == "better: better by 0.110 ± 0.025 nats"
    assert "Student's 95 % interval" in rule


def test_fewer_than_three_seeds_have_no_verdict_and_that_is_told():
    two = Results("x", "tokens", "plain", FOUND.variants, [r for r in ROWS if r["seed"] != 3], {})
    assert results.verdicts(two)[0] == "same: +0.000 nats over 2 pairs of runs: too few to tell from noise"
    assert results.verdicts(two)[-1].startswith("Few seeds: at least 3 are needed")
    assert "-0.105 ± 0.064 ?" in shown(*results.differences_tables(two))
    one = Results("x", "tokens", "plain", FOUND.variants, [r for r in ROWS if r["seed"] == 1], {})
    assert results.verdicts(one)[0] == "same: +0.500 nats over one pair of runs: too few to tell from noise"
    none = Results("x", "tokens", "plain", FOUND.variants, [ROWS[0], ROWS[4]], {})
    assert results.verdicts(none)[0] == "same: no seed that plain has too"


def test_tables_have_means_deviations_and_a_mark_for_noise():
    text = shown(*results.scores_tables(FOUND), *results.costs_tables(FOUND), *results.differences_tables(FOUND))
    assert "6.000 ± 1.000" in text
    assert "25.0% ± 0.0" in text
    assert "+0.000 ± 1.242 ≈" in text
    assert "-0.110 ± 0.025 " in text
    assert "2,500" in text
    assert "…" not in text, "nothing is cut off in 80 columns"


def test_long_names_and_wide_margins_stay_whole_in_80_columns():
    long = "no masked language model"
    rows = [row("all three losses", s, 5.0, kl=12.5) for s in (1, 2)] + [
        row(long, s, 15.0 + 3 * s, kl=12.5 * s, top1=s / 3) for s in (1, 2)
    ]
    found = Results("x", "tokens", "all three losses", ["all three losses", long], rows, {})
    text = shown(*results.scores_tables(found), *results.differences_tables(found))
    assert "…" not in text
    assert text.count(long) == 4, "two tables of scores, two of differences"
    assert "(2)" in text, "how many runs a mean is of"
    assert "+14.500 ± 19.059 ?" in text


def test_a_variant_that_has_not_run_yet_or_failed_is_an_empty_row():
    part = Results("x", "tokens", "plain", [*FOUND.variants, "late"], ROWS, {"late, seed 1": "it said nothing"})
    assert "late" in shown(*results.scores_tables(part), *results.differences_tables(part))
    assert part.as_dict()["failed"] == {"late, seed 1": "it said nothing"}
    assert part.as_dict()["means"]["late"] == {}


def test_runs_without_a_teacher_have_no_columns_for_one():
    alone = [{**r, "agreement": None, "kl": None, "retention": None, "similarity": None, "similarity_last": None} for r in ROWS]
    text = shown(*results.scores_tables(Results("x", "tokens", "plain", FOUND.variants, alone, {})))
    assert "agrees" not in text
    assert "KL" not in text


def test_json_and_csv_hold_every_run(tmp_path: Path):
    values = json.loads(json.dumps(FOUND.as_dict()))
    assert values["means"]["plain"]["loss"] == {"mean": 6.0, "deviation": 1.0, "count": 3}
    assert values["differences"]["same"]["loss"]["within_noise"] is True
    assert values["differences"]["better"]["loss"]["within_noise"] is False
    assert len(values["runs"]) == 9
    rows = list(csv.DictReader(io.StringIO(results.rows_csv(FOUND))))
    assert [(r["variant"], r["seed"], r["loss"]) for r in rows[:2]] == [("plain", "1", "5.0"), ("plain", "2", "6.0")]


@pytest.mark.parametrize("variants", [3, 9])
def test_the_picture_is_a_small_png(tmp_path: Path, variants: int):
    names = [f"variant {number}" for number in range(variants)]
    rows = [row(name, seed, 5.0 + seed / 10, similarity=[[0.5] * 7] * 4) for name in names for seed in (1, 2, 3)]
    plots.draw(Results("x", "time", names[0], names, rows, {}), tmp_path / "x.png")
    data = (tmp_path / "x.png").read_bytes()
    assert data.startswith(b"\x89PNG")
    assert len(data) < 100_000


def test_a_picture_without_a_teacher_has_no_similarities(tmp_path: Path):
    rows = [row("plain", 1, 5.0, similarity=None, agreement=None, kl=None), row("same", 1, 5.1, similarity=None, agreement=None, kl=None)]
    found = Results("x", "tokens", "plain", ["plain", "same"], rows, {})
    assert plots.mean_similarity(found, "plain") is None
    plots.draw(found, tmp_path / "x.png")
    assert (tmp_path / "x.png").stat().st_size > 1000


def test_similarities_are_averaged_over_a_variants_runs():
    rows = [row("plain", 1, 5.0), row("plain", 2, 5.0, similarity=[[0.4, 0.4], [0.0, 0.2]])]
    found = Results("x", "tokens", "plain", ["plain"], rows, {})
    assert plots.mean_similarity(found, "plain") == [[pytest.approx(0.3), 0.4], [0.3, 0.5]]
