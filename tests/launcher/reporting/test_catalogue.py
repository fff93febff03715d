"""The numbers of a train line: one row in the catalogue, one in the docs, and what a trainer adds is averaged and shown."""

import re
from pathlib import Path

from kd.training.update_report import UpdateReport
from launcher.reporting import catalogue, console, meter
from launcher.reporting.catalogue import TRAIN_METRICS, TrainMetric
from launcher.reporting.meter import Meter

DOCS = Path(__file__).parents[3] / "docs" / "metrics.md"


def test_the_documented_train_numbers_are_those_of_the_catalogue():
    section = DOCS.read_text(encoding="utf-8").split("## `train`")[1].split("\n## ")[0]
    names = [name for cell in re.findall(r"^\| (`[^|]*`) \|", section, re.MULTILINE) for name in re.findall(r"`([a-z0-9_/]+)`", cell)]
    assert names == [name for name in names if name in {metric.key for metric in TRAIN_METRICS}]
    assert {metric.key for metric in TRAIN_METRICS} - set(names) == set()


def test_every_event_of_a_run_is_documented():
    section = DOCS.read_text(encoding="utf-8").split("| `event` | when |")[1].split("\n## ")[0]
    sources = "".join(file.read_text() for file in (DOCS.parents[1] / "launcher").rglob("*.py"))
    names = set(re.findall(r"""event\(\s*"([a-z_]+)\"""", sources))
    assert names >= {"started", "note", "ended_early", "finished"}
    assert names - set(re.findall(r"^\| `([a-z_]+)` \|", section, re.MULTILINE)) == set()


def test_a_number_that_the_trainer_adds_is_averaged_and_shown_by_its_row_alone(monkeypatch):
    row = TrainMetric("drawn_share", lambda value: f"drawn {value:.0%}", per_update=True)
    monkeypatch.setattr(console, "TRAIN_METRICS", (*TRAIN_METRICS, row))
    monkeypatch.setattr(meter, "PER_UPDATE", (*catalogue.PER_UPDATE, row.key))
    counted = Meter()
    for share in (0.0, 1.0):
        counted.add(UpdateReport(1, 2.0, {}, 3.0, 0.1, True, 8, 2, more={"drawn_share": share}))
    values = counted.take(0.0)
    assert (values["drawn_share"], values["loss"], values["gradient_norm"]) == (0.5, 2.0, 3.0)
    assert "drawn 50%" in console.sentence({"kind": "train", "update": 2, **values})
