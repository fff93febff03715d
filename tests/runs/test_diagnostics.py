"""Similarity of layers and masked sentences of whole runs: the same for any ranks and teacher mode, and without effect on the training."""

import json
import re

import pytest
from run_lines import facts, lines

pytestmark = pytest.mark.slow
SETTINGS = ("student.dropout=0.1", "train.updates=8", "evaluate.every_updates=4", "report.every_updates=2", "checkpoint.every_updates=8")
MEASURED = ("evaluate.layer_similarity_every=4", "evaluate.samples=4")
CKA = ("cka/", "cka_layer/")


def without(line: dict) -> dict:
    return {key: value for key, value in line.items() if not key.startswith(CKA)}


def samples(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]


def test_two_ranks_measure_what_one_does_and_a_run_that_measures_nothing_learns_the_same(start, tmp_path):
    plain = start(tmp_path / "plain", *SETTINGS, "evaluate.samples=0")
    one = start(tmp_path / "one", *SETTINGS, *MEASURED)
    two = start(tmp_path / "two", *SETTINGS, *MEASURED, "teacher.mode=zero3", ranks=2)
    for run, ranks in ((plain, 1), (one, 1), (two, 2)):
        assert run.wait() == [0] * ranks, run.output
    assert [without(line) for line in facts(tmp_path / "one")] == facts(tmp_path / "plain")
    assert facts(tmp_path / "one", "heldout") == facts(tmp_path / "plain", "heldout")
    assert not (tmp_path / "plain" / "samples.jsonl").exists()
    measured, again = ([line for line in lines(tmp_path / name, "train") if "cka/0" in line] for name in ("one", "two"))
    assert [line["update"] for line in measured] == [line["update"] for line in again] == [4, 8]
    for mine, its in zip(measured, again, strict=True):
        for layer in range(2):
            assert mine[f"cka/{layer}"] == pytest.approx(its[f"cka/{layer}"], abs=2e-4)  # the students differ by rounding
            assert mine[f"cka_layer/{layer}"] in range(4)
    first, second = samples(tmp_path / "one"), samples(tmp_path / "two")
    assert len(first) == 4
    for mine, its in zip(first, second, strict=True):
        assert {key: mine[key] for key in ("id", "text", "label", "update")} == {key: its[key] for key in ("id", "text", "label", "update")}
        assert [word for word, _ in mine["teacher"]] == [word for word, _ in its["teacher"]]


def test_a_killed_run_measures_what_one_that_was_never_stopped_does(start, tmp_path):
    settings = (*SETTINGS, *MEASURED, "checkpoint.every_updates=2", "evaluate.layer_similarity_every=2")
    whole = start(tmp_path / "whole", *settings)
    assert whole.wait() == [0], whole.output
    killed = start(tmp_path / "killed", *settings)
    killed.wait_for_update(4)
    killed.kill()
    newest = max((tmp_path / "killed" / "checkpoints").glob("update-*"))
    again = start(tmp_path / "killed", *settings, arguments=("--resume",))
    assert again.wait() == [0], again.output
    resumed = next(line for line in lines(tmp_path / "killed", "event") if line["event"] == "resumed")
    assert newest.name in resumed["message"] or resumed["update"] == int(newest.name.removeprefix("update-"))
    for kind in ("train", "heldout"):
        assert facts(tmp_path / "killed", kind) == facts(tmp_path / "whole", kind)
    assert sum("cka/0" in line for line in lines(tmp_path / "killed", "train")) == 4
    assert samples(tmp_path / "killed") == samples(tmp_path / "whole")
    tables = [(tmp_path / name / "layer_similarity.txt").read_text() for name in ("killed", "whole")]
    assert tables[0] == tables[1]
    assert tables[0].startswith("update 8\n")
    last = lines(tmp_path / "whole", "train")[-1]
    rows = re.findall(r"^ *(\d) +((?:[01]\.\d\d\*? *){4})$", tables[0], re.MULTILINE)
    assert [max(float(cell.rstrip("*")) for cell in cells.split()) for _, cells in rows] == pytest.approx(
        [last["cka/0"], last["cka/1"]], abs=0.005
    )


def test_a_similarity_that_cannot_be_measured_is_refused_before_the_start(start, tmp_path):
    run = start(tmp_path / "run", "evaluate.layer_similarity_every=5")
    assert run.wait() == [2]
    assert "evaluate.layer_similarity_every: expected a multiple of report.every_updates = 2, got 5; change either" in run.output
