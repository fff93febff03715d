"""Rows that a masked language model makes of a task's rows: counted, labelled by the teacher, made once, refused where they cannot help."""

import json
import shutil
import signal
from pathlib import Path

import pytest
import torch
from run_lines import facts
from safetensors.torch import load_file
from task_files import make_task

from launcher.commands.parser import parser
from launcher.config.load import load_run
from launcher.errors import LaunchError
from launcher.tasks import data
from launcher.tasks.augment import FOLDER

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
SMALL = (
    *("train.global_batch=16", "train.micro_batch=8", "train.precision=fp32", "optimizer.learning_rate=3e-3"),
    *("report.every_updates=1", "evaluate.resamples=100", "data.max_length=64"),
)


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("config") / "task.yaml"
    path.write_text("run: {folder: x}\ndata: {kind: classification}\ntrain: {global_batch: 8, micro_batch: 8}\n")
    return str(path)


@pytest.fixture
def settings(school, start, config, tmp_path, monkeypatch) -> tuple[str, ...]:
    """Settings of a run that distils with two copies of each of 40 rows."""
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))
    files = make_task(tmp_path / "task", "classification", rows=40)
    first = start(
        tmp_path / "teacher", *files.settings, *SMALL, f"student.init={school.teacher}", "train.updates=2", config=config, task=True
    )
    assert first.wait() == [0], first.output
    augment = f"data.augment={{model: {school.teacher}, copies: 2, candidates: 3}}"
    teacher = (f"teacher.model={tmp_path}/teacher/student", "teacher.allow_untrained=true")
    return (*files.settings, *SMALL, *teacher, "student.init=teacher", "student.architecture=same", augment)


def done(run) -> str:
    assert set(run.wait()) == {0}, run.output
    return run.output


def report(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def test_rows_are_made_once_counted_and_labelled_by_the_teacher(settings, start, config, tmp_path, capsys):
    words = (*settings, "train.epochs=2")
    dry = start(tmp_path / "dry", *words, config=config, task=True, arguments=("--dry-run",))
    assert "at most 80; made before the first update" in " ".join(done(dry).split())
    assert not (tmp_path / "cache" / FOLDER).exists()
    output = done(start(tmp_path / "first", *words, config=config, task=True))
    assert "changing words of 40 texts" in output
    made = report(tmp_path / "first")
    count = made["rows"]["augmented"]
    assert 40 < count <= 80
    assert any(line.startswith(f"augmented: {count} rows made of 40 rows of train") for line in made["data"])
    assert made["updates"] == -(-2 * (40 + count) // 16)
    output = done(start(tmp_path / "second", *words, config=config, task=True))
    assert "changing words" not in output
    assert facts(tmp_path / "second") == facts(tmp_path / "first")
    dry = start(tmp_path / "dry", *words, config=config, task=True, arguments=("--dry-run",))
    assert f"{count} rows of augmented" in " ".join(done(dry).split())
    assert data.run(parser().parse_args(["task", "data", "--config", config, *words, "run.folder=x"])) == 0
    assert f"augmented: {count} rows made" in capsys.readouterr().out


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_killed_run_ends_bit_identical_though_the_rows_are_gone(ranks, settings, start, config, tmp_path):
    words = (*settings, "train.updates=12", "checkpoint.every_updates=3")
    done(start(tmp_path / "undisturbed", *words, config=config, task=True, ranks=ranks))
    first = start(tmp_path / "killed", *words, config=config, task=True, ranks=ranks)
    first.wait_for_update(5)
    first.signal(signal.SIGKILL)
    first.wait()
    (file,) = (tmp_path / "cache" / FOLDER).glob("*.json")
    content = file.read_bytes()
    file.write_bytes(content[:-3])
    output = done(start(tmp_path / "killed", *words, config=config, task=True, ranks=ranks))
    assert "expected the augmented rows that were written, got others; they are made anew" in output
    assert file.read_bytes() == content
    assert facts(tmp_path / "killed") == facts(tmp_path / "undisturbed")
    expected, again = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("undisturbed", "killed"))
    assert all(torch.equal(weight, again[name]) for name, weight in expected.items())


def test_rows_are_left_out_without_a_teacher_and_refused_where_they_cannot_be_made(settings, start, school, config, tmp_path):
    alone = [word for word in settings if not word.startswith(("teacher", "student"))]
    words = (*alone, f"student.init={school.teacher}", "train.updates=2")
    output = done(start(tmp_path / "alone", *words, config=config, task=True))
    assert "augment: no rows are made, for without a teacher nothing labels them" in output
    headless = tmp_path / "teacher" / "student"
    wrong = (*settings, f"data.augment.model={headless}", "train.updates=2")
    refused = start(tmp_path / "refused", *wrong, config=config, task=True, arguments=("--dry-run",))
    assert refused.wait() == [2]
    assert f"{headless}: expected" in refused.output
    assert "head" in refused.output
    shutil.rmtree(tmp_path / "task")
    tagging = make_task(tmp_path / "tags", "tagging", rows=20)
    with pytest.raises(LaunchError, match=r"augment: expected classification, multi_label or regression, got tagging"):
        load_run(config, [*tagging.settings, *SMALL, f"data.augment={{model: {school.teacher}}}", f"student.init={school.teacher}"])
