"""The files of a report: all of them or none, the same bytes for the same results, JSON without NaN."""

import json
from pathlib import Path

import pytest
from report_results import write_results

from launcher.errors import LaunchError
from launcher.report.results import Results, read_results
from launcher.report.write import write_report

FILES = ("report.html", "report.json", "report.md", "results.json", "table.txt")


def test_a_report_can_be_written_again_from_its_results_with_the_same_bytes(tmp_path: Path):
    write_report(write_results(tmp_path, ("SST-2", "CoLA")), tmp_path)
    first = {name: (tmp_path / name).read_bytes() for name in FILES}
    write_report(read_results(tmp_path / "results.json"), tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in FILES} == first


def test_the_json_has_every_figure(tmp_path: Path):
    results = write_results(tmp_path, ("SST-2", "RTE"))
    write_report(results, tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(name))
    sst2, rte = report["tasks"]
    teacher, student = sst2["models"][:2]
    assert student["retained"] == pytest.approx(student["value"] / teacher["value"])
    assert student["above_constant"] == pytest.approx((student["value"] - sst2["constant"]) / (teacher["value"] - sst2["constant"]))
    assert (student["parameters"], student["latency_ms"]) == (17_389_440, 5.1)
    assert not rte["meaningful"]
    assert rte["models"][1]["above_constant"] is None
    assert [average["title"] for average in report["averages"]] == [
        "Mean over 2 tasks",
        "Mean over 1 task, without the small and noisy RTE",
    ]
    assert report["published"]


def test_the_json_has_parts_and_the_scores_by_pretraining_tokens(tmp_path: Path):
    write_report(write_results(tmp_path, ("SST-2",), predictions=False, pretrained=True), tmp_path)
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    values = {model["model"]: model["value"] for model in report["tasks"][0]["models"]}
    transfer = next(part for part in report["parts"] if part["part"] == "transfer")
    assert transfer["tasks"]["SST-2"]["value"] == pytest.approx(values["4 M, transfer set"] - values["4 M, distilled"])
    assert transfer["mean"]["low"] < transfer["mean"]["value"] < transfer["mean"]["high"]
    assert [one["tokens"] for one in report["pretraining"]["students"]] == [0, 0, 368_583, 4_000_000, 4_000_000, 4_000_000]
    assert report["pretraining"]["students"][2]["scores"]["SST-2"]["value"] == pytest.approx(values["400 k, distilled"])


def test_nothing_is_written_where_predictions_are_missing(tmp_path: Path):
    results = write_results(tmp_path, ("SST-2",))
    (tmp_path / "predictions" / "glue-sst2-1-0.jsonl").unlink()
    with pytest.raises(LaunchError, match=r"glue-sst2-1-0.jsonl: expected a file with predictions"):
        write_report(results, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["predictions"]


def test_a_folder_that_does_not_exist_is_one_line(tmp_path: Path):
    results = Results.model_validate(write_results(tmp_path, ("SST-2",), predictions=False).model_dump())
    with pytest.raises(LaunchError, match="expected to write the report, got No such file or directory"):
        write_report(results, tmp_path / "none")
