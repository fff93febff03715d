"""A whole run where the vocabulary head may take its kernel: the words, the record, and the tiles where the kernel does not run."""

import json

import pytest
from run_lines import lines, train_lines

pytestmark = pytest.mark.slow
SETTINGS = ("train.updates=4", "checkpoint.every_updates=2", "report.every_updates=1", "evaluate.every_updates=null")


def test_a_run_goes_on_with_tiles_where_the_kernel_does_not_run_and_one_line_says_so(start, tmp_path):
    plain = start(tmp_path / "plain", *SETTINGS)
    assert plain.wait() == [0], plain.output
    notes = [line["message"] for line in lines(tmp_path / "plain", "event") if line["event"] == "note"]
    assert not any("vocabulary head" in note for note in notes), "a CPU has one way"
    assert "vocabulary_head" not in json.loads((tmp_path / "plain" / "environment.json").read_text())["precision"]

    folder, kernel_here = tmp_path / "run", {"kd.kernels.fused_terms.DEVICES": ["cpu"]}
    run = start(folder, *SETTINGS, constants=kernel_here)
    assert run.wait() == [0], run.output
    notes = [line["message"] for line in lines(folder, "event") if line["event"] == "note" and "vocabulary head" in line["message"]]
    (note,) = notes
    assert note.startswith("vocabulary head: tile by tile, with about 12 times the memory traffic of one kernel (")
    assert "Triton is not installed" in note or "the kernel did not run" in note
    way = json.loads((folder / "environment.json").read_text())["precision"]["vocabulary_head"]
    assert note == f"vocabulary head: {way}"
    assert [line["loss"] for line in train_lines(folder)] == [line["loss"] for line in train_lines(tmp_path / "plain")]
