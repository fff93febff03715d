"""A run's offline W&B file, read by W&B's own reader: the numbers of metrics.jsonl line by line, and each key of the dashboard."""

import math
import re

import pytest
from run_lines import lines
from wandb_server import inspected

from launcher.dashboard.panels import panels
from launcher.reporting.catalogue import CHECKPOINT, CONSTANTS

pytestmark = pytest.mark.slow
SCHEDULES = ("objective.0.temperature={schedule: linear, from: 4, to: 2}", "objective.1.weight={schedule: linear, from: 2, to: 1}")
SETTINGS = (
    "report.wandb=offline",
    "report.group=trials",
    "report.job_type=distil",
    "train.spike_factor=100",
    "train.clip=0.001",
    "checkpoint.asynchronous=false",
    *SCHEDULES,
)


def expected(folder) -> dict[int, dict[str, float]]:
    """Update -> the curves that metrics.jsonl says W&B has."""
    rows: dict[int, dict[str, float]] = {}
    checkpoints = [line for line in lines(folder, "event") if line["event"] == "checkpoint"]
    for line in (*lines(folder, "train"), *lines(folder, "heldout"), *checkpoints):
        kind = "checkpoint" if line["kind"] == "event" else line["kind"]
        axes = {key: line[key] for key in ("update", "tokens", "elapsed_seconds") if key in line}
        names = CHECKPOINT if kind == "checkpoint" else [key for key in line if key not in (*axes, *CONSTANTS, "kind", "time", "update")]
        curves = {f"{kind}/{key.removeprefix('heldout_')}": line[key] for key in names}
        rows.setdefault(line["update"], {}).update(axes | {key: value for key, value in curves.items() if isinstance(value, int | float)})
    return rows


def test_the_offline_file_of_a_run_has_every_number_of_its_metrics_and_no_other(start, tmp_path):
    run = start(tmp_path / "run", *SETTINGS)
    assert run.wait() == [0], run.output
    (file,) = (tmp_path / "run").glob("wandb/offline-run-*/run-*.wandb")
    rows = [record["history"]["item"] for record in inspected(file) if record["type"] == "history"]
    (begun,) = [record["run"] for record in inspected(file) if record["type"] == "run"]
    assert (begun["run_group"], begun["job_type"]) == ("trials", "distil")
    settings = begun["config"]["update"]
    assert settings["train"]["updates"] == 12
    assert len(settings["origin"]["contents"]["data.shards"]) == 12
    assert settings["origin"]["parents"] == {}
    found = {row["update"]: {key: value for key, value in row.items() if not key.startswith("_")} for row in rows}
    assert found == expected(tmp_path / "run")
    trained = lines(tmp_path / "run", "train")
    assert [line["update"] for line in trained] == [2, 4, 6, 8, 10, 12]
    assert [line["clipped_share"] for line in trained] == [1.0] * 6  # no gradient is as small as the limit
    for line in trained:
        assert math.isclose(sum(value for key, value in line.items() if key.startswith("time/")), 1.0)
        assert line["tokens_per_second_per_rank"] == line["tokens_per_second"]
        assert (line["restarts"], line["roll_backs"], line["stragglers"], line["skipped_shards"]) == (0, 0, 0, 0)
    assert all(row["checkpoint/bytes"] > 0 for row in rows if row["update"] in (4, 8, 12))
    for panel in (panel for section in panels().values() for panel in section):
        curves = [key for row in rows for key in row if key in panel.keys or (panel.pattern and re.match(panel.pattern, key))]
        assert set(panel.keys) <= set(curves), panel
        assert curves, panel
        assert any(panel.x in row for row in rows if set(curves) & row.keys()), panel
