"""The memory of a run on a task: planned beside measured, a start that is refused, and an update with the longest row that is undone."""

import json
import re

import pytest
from task_files import make_task

from launcher.config.load import load_run
from launcher.tasks.source import TaskSource

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
SETTINGS = ("train.global_batch=16", "train.micro_batch=8", "train.updates=6", "train.precision=fp32", "report.every_updates=1")


@pytest.mark.parametrize("kind", ["classification", "tagging"])
def test_trying_the_longest_rows_changes_nothing(start, school, tmp_path, kind: str):
    path = tmp_path / "task.yaml"
    path.write_text("run: {folder: x}\ndata: {kind: classification}\ntrain: {global_batch: 8, micro_batch: 8}\n")
    files = make_task(tmp_path / kind, kind)
    losses = []
    source = TaskSource.read(load_run(str(path), [*files.settings, f"student.init={school.teacher}", *SETTINGS]))
    guessed = source.longest(str(school.teacher))
    assert guessed == int(source.encoded("train", str(school.teacher)).lengths.max()) == source.longest(str(school.teacher))
    for name, words in (("plain", ()), ("tried", ("train.try_largest_batch=true",))):
        run = start(tmp_path / name, *files.settings, f"student.init={school.teacher}", *SETTINGS, *words, config=str(path), task=True)
        assert run.wait() == [0], run.output
        assert ("trying an update on the largest batch" in run.output) == bool(words)
        lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
        trained = [line for line in lines if line["kind"] == "train"]
        # the forked process has the libraries of its parent: the planned figure is of the right order, the benchmark compares exactly
        assert 0.2 < trained[0]["memory_planned_gb"] / trained[0]["memory_gb"] < 5
        assert all(0 < line["utilisation"] < 1.2 and line["tflops"] > 0 for line in trained)
        losses.append([line["loss"] for line in lines if line["kind"] == "train"])
    assert losses[0] == losses[1]
    assert len(losses[0]) == 6


def test_a_task_whose_memory_is_not_there_is_refused_in_one_line(start, school, tmp_path):
    path = tmp_path / "task.yaml"
    path.write_text("run: {folder: x}\ndata: {kind: classification}\ntrain: {global_batch: 8, micro_batch: 8}\n")
    files = make_task(tmp_path / "task", "classification")
    words = (*files.settings, f"student.init={school.teacher}", *SETTINGS, "evaluate.batch=100000000")
    run = start(tmp_path / "run", *words, config=str(path), task=True)
    assert run.wait() == [2]
    assert re.search(r"train\.check_memory: expected [\d.,]+ [GT]B for a rank on \S+, as planned, got .*; set evaluate\.batch=", run.output)
    assert "Traceback" not in run.output
