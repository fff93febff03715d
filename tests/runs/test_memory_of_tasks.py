"""A run on a task tries the update with its longest row and undoes it."""

import json

import pytest
from task_files import make_task

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
SETTINGS = ("train.global_batch=16", "train.micro_batch=8", "train.updates=6", "train.precision=fp32", "report.every_updates=1")


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_trying_the_longest_rows_changes_nothing(start, school, tmp_path, kind: str):
    path = tmp_path / "task.yaml"
    path.write_text("run: {folder: x}\ndata: {kind: classification}\ntrain: {global_batch: 8, micro_batch: 8}\n")
    files = make_task(tmp_path / kind, kind)
    losses = []
    for name, words in (("plain", ()), ("tried", ("train.try_largest_batch=true",))):
        run = start(tmp_path / name, *files.settings, f"student.init={school.teacher}", *SETTINGS, *words, config=str(path), task=True)
        assert run.wait() == [0], run.output
        assert ("trying an update on the largest batch" in run.output) == bool(words)
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        losses.append([line["loss"] for line in lines if line["kind"] == "train"])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6
