"""A run's offline W&B file, read by W&B's own reader: the numbers of metrics.jsonl line by line, and each key of the dashboard."""

import base64
import hashlib
import json
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
    "evaluate.layer_similarity_every=4",
    "evaluate.samples=3",
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


def assert_samples(folder, rows) -> None:
    """W&B has a table at each evaluation, and samples.jsonl has the newest."""
    newest = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows if "samples._type" in row] == [6, 12]
    (table,) = [row for row in rows if row["update"] == 12]
    (stored,) = folder.glob(f"wandb/offline-run-*/files/{table['samples.path']}")
    values = json.loads(stored.read_text())
    assert values["columns"] == ["text", "label", "student", "teacher"]
    assert [row[:2] for row in values["data"]] == [[line["text"], line["label"]] for line in newest]
    assert len(newest) == 3
    for line, row in zip(newest, values["data"], strict=True):
        assert (line["update"], line["prediction"]) == (12, line["student"][0][0])
        assert line["text"].count("[MASK]") == 1
        for name, cell in zip(("student", "teacher"), row[2:], strict=True):
            chances = [chance for _, chance in line[name]]
            assert len(chances) == 5
            assert chances == sorted(chances, reverse=True)
            assert cell.startswith(f"{line[name][0][0]} {100 * chances[0]:.0f} %, ")


def assert_artifact(folder, records, run_id: str) -> None:
    """The student is an artifact by reference: its place and digests, and none of its bytes."""
    (artifact,) = [one["artifact"] for one in records if one["type"] == "artifact" and one["artifact"]["type"] == "model"]
    assert artifact["name"] == f"student-{run_id}"
    assert json.loads(artifact["metadata"])["updates"] == 12
    student = folder / "student"
    contents = {entry["path"]: entry for entry in artifact["manifest"]["contents"]}
    assert set(contents) == {path.relative_to(student).as_posix() for path in student.rglob("*") if path.is_file()}
    weights = contents["model.safetensors"]
    assert weights["ref"] == (student / "model.safetensors").as_uri()
    assert weights["digest"] == base64.b64encode(hashlib.md5((student / "model.safetensors").read_bytes()).digest()).decode()
    assert "local_path" not in weights


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
    own = ("_", "samples.")
    found = {row["update"]: {key: value for key, value in row.items() if not key.startswith(own)} for row in rows}
    assert found == expected(tmp_path / "run")
    assert_samples(tmp_path / "run", rows)
    assert_artifact(tmp_path / "run", inspected(file), begun["run_id"])
    trained = lines(tmp_path / "run", "train")
    assert [line["update"] for line in trained if "cka/0" in line] == [4, 8, 12]
    assert all(0.3 < line["cka/0"] <= 1.0 and line["cka_seconds"] > 0 for line in trained if "cka/0" in line)
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
