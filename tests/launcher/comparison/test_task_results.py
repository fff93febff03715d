"""A ranking of runs on a task whose means, spreads and differences are known by hand; and the settings of such comparisons."""

import csv
import io

import pytest
from rich.console import Console

from launcher.comparison.settings import Comparison
from launcher.comparison.tasks import plots, results
from launcher.comparison.tasks.plan import is_of_task, load_task_comparison, plan_tasks
from launcher.comparison.tasks.results import TaskResults
from launcher.config.load import load_settings
from launcher.config.yaml_file import PACKAGED
from launcher.errors import LaunchError

NAMES = sorted(path.stem for path in (PACKAGED / "compare" / "tasks").glob("*.yaml"))


def report(value: float, half: float = 0.03, teacher: float | None = 0.8, key: str = "accuracy") -> dict:
    dev = {key: value, "rows": 400, "intervals": {key: [value - half, value + half]}, "standard_errors": {key: half / 2}}
    dev |= {"constant": {key: 0.5}}
    costs = {"updates": 30, "parameters": 1000, "elapsed_seconds": 12.5}
    return {"task": {"metric": key}, "dev": dev, "teachers": [] if teacher is None else [{key: teacher}], **costs}


def outcome(values: dict[str, tuple[float, ...]], reference: str | None = None, lower: bool = False, **more) -> TaskResults:
    rows = [results.row_of(name, seed, report(value, **more)) for name, own in values.items() for seed, value in enumerate(own, 1)]
    return TaskResults("x", "accuracy", lower, list(values), reference, rows, {})


VALUES = {"low": (0.60, 0.61, 0.62), "best": (0.70, 0.72, 0.74), "near": (0.69, 0.71, 0.73)}


def test_variants_are_ranked_and_a_difference_must_exceed_both_kinds_of_noise():
    found = outcome(VALUES)
    assert found.ranked == ["best", "near", "low"]
    near, low, rule, *_ = results.verdicts(found)
    assert near == "near: within the noise of dev's rows (± 0.030): accuracy -0.010 ± 0.000"  # the same -0.01 at each seed
    # differences -0.10, -0.11, -0.12: mean -0.11, deviation 0.01, margin 4.3027 x 0.01 / sqrt(3) = 0.0248
    assert low == "low: worse than best, beyond the noise: accuracy -0.110 ± 0.025"
    assert "400 rows" in rule
    noisy = outcome({"best": (0.70, 0.90, 0.80), "other": (0.80, 0.70, 0.78)}, half=0.01)
    assert results.verdicts(noisy)[0].startswith("other: within the noise of the seeds: accuracy -0.040 ± ")


def test_a_reference_and_a_metric_of_which_less_is_better():
    found = outcome(VALUES, reference="low", lower=True)
    assert found.ranked == ["low", "near", "best"]
    assert results.verdicts(found)[0].startswith("near: worse than low, beyond the noise: accuracy +0.100")


def test_few_seeds_and_scores_near_a_constant_prediction_are_said():
    one = outcome({"a": (0.70,), "b": (0.60,)}, half=0.01)
    lines = results.verdicts(one)
    assert lines[0] == "b: accuracy -0.100 over one pair of runs: too few to tell from noise"
    assert any(line.startswith("Few seeds: at least 3") for line in lines)
    assert any("flattered by the choice" in line for line in lines)
    weak = results.verdicts(outcome({"a": (0.51, 0.52, 0.50)}))
    assert "No variant is two standard errors better than a constant prediction (0.500): the ranking says nothing." in weak


def test_the_table_fits_in_80_columns_and_the_csv_has_every_run():
    console = Console(width=80, file=io.StringIO())
    console.print(results.ranking_table(outcome(VALUES)))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    for cell in ("best (3)", "0.720 ± 0.020", "0.030", "90.0%", "-0.010 ± 0.000 ≈", "-0.110 ± 0.025", "30", "12"):
        assert cell in text
    assert "…" not in text
    rows = list(csv.DictReader(io.StringIO(results.rows_csv(outcome(VALUES)))))
    assert len(rows) == 9
    assert rows[3]["variant"] == "best"
    assert float(rows[3]["retained"]) == pytest.approx(0.875)


@pytest.mark.parametrize("values", [VALUES, {"one": (0.6,), "two": (0.7,), "none": ()}])
@pytest.mark.parametrize("teacher", [0.8, None])
def test_the_picture_has_a_row_for_each_variant_with_a_run(values, teacher, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(plots.Figure, "savefig", lambda figure, *_arguments, **_more: drawn.append(figure))
    plots.draw(outcome(values, teacher=teacher), tmp_path / "x.png")
    (figure,) = drawn
    assert len(figure.axes) == (2 if teacher else 1)  # the second has the shares of the teacher's score
    metric = figure.axes[0]
    names = [name for name, own in values.items() if own]
    assert [label.get_text() for label in metric.get_yticklabels()] == names
    points = [sorted(x for x, _ in dots.get_offsets()) for dots in metric.collections]
    assert points == [sorted(values[name]) for name in names]
    lines = [tuple(line.get_xdata()) for line in metric.lines]
    mean = sum(values[names[0]]) / len(values[names[0]])
    assert any(line == pytest.approx((mean - 0.03, mean + 0.03)) for line in lines)  # the rows of dev
    # three seeds of deviation 0.01: 4.3027 x 0.01 / sqrt(3) = 0.02484; one seed has no interval
    assert any(line == pytest.approx((mean - 0.02484, mean + 0.02484), abs=1e-5) for line in lines) == (len(values[names[0]]) == 3)


def test_the_picture_is_a_png(tmp_path):
    plots.draw(outcome(VALUES), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", NAMES)
def test_packaged_comparisons_of_tasks_are_ordinary_runs(name, tmp_path):
    comparison = load_settings(Comparison, f"tasks/{name}", "compare")
    assert is_of_task(comparison.base)
    runs = plan_tasks(comparison, name, tmp_path, ["teacher.model=x"] if name == "soft-targets" else [])
    assert len(runs) == len(comparison.variants) * len(comparison.seeds)
    assert (PACKAGED / "compare" / "tasks" / f"{name}.yaml").read_text(encoding="utf-8").startswith("# ")


def test_a_budget_the_same_run_twice_and_decided_settings_are_refused(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("base: tasks/mrpc\ntokens: 1000\nvariants: {a: [], b: [train.clip=2]}\n")
    with pytest.raises(LaunchError, match=r"tokens: expected none for a task, got 1000; set train.epochs or train.updates instead"):
        load_task_comparison(str(file), "tokens")
    file.write_text("base: tasks/mrpc\nvariants: {a: [], b: [train.seed=3]}\n")
    comparison = load_task_comparison(str(file), "tokens")
    with pytest.raises(LaunchError, match=r"variants.b: expected settings that are not decided for all runs, got train.seed"):
        plan_tasks(comparison, str(file), tmp_path, [])
    with pytest.raises(LaunchError, match="--budget tokens for a task, got time"):
        load_task_comparison(str(file), "time")
    file.write_text("base: tasks/mrpc\nvariants: {a: [], b: [train.epochs=4]}\n")  # tasks/mrpc has 4
    with pytest.raises(LaunchError, match="expected different runs, got the same one for a and b"):
        plan_tasks(load_task_comparison(str(file), "tokens"), str(file), tmp_path, [])
