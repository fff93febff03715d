"""A teacher's outputs that are computed once: equal to computed ones, found by content, made anew where damaged."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from run_lines import facts
from safetensors.torch import load_file, save_file
from task_files import TaskFiles, make_task

from kd.distributed import process_group
from launcher.config.load import load_run
from launcher.tasks import teachers
from launcher.tasks.build import build_task
from launcher.tasks.source import TaskSource

pytestmark = [pytest.mark.slow, pytest.mark.tasks]
KINDS = ("classification", "regression", "multi_label", "tagging", "question_answering")
SMALL = (
    *("train.global_batch=16", "train.micro_batch=8", "train.precision=fp32", "optimizer.learning_rate=3e-3"),
    *("report.every_updates=1", "checkpoint.every_updates=10", "evaluate.resamples=100"),
)
DISTIL = ("student.init=teacher", "student.architecture=same", "teacher.allow_untrained=true")
OFF = "teacher.cache_outputs=false"


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("config") / "task.yaml"
    path.write_text("run: {folder: x}\ndata: {kind: classification}\ntrain: {global_batch: 8, micro_batch: 8}\n")
    return str(path)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, TaskFiles]:
    folder = tmp_path_factory.mktemp("tasks")
    return {kind: make_task(folder / kind, kind, rows=64) for kind in KINDS}


@pytest.fixture
def run(start, config, files, school, tmp_path, monkeypatch):
    """run(kind, name, *words): a run from start to end in its folder. A kind's teacher is made once, of 4 updates."""
    monkeypatch.setenv("STILLHOUSE_CACHE", str(tmp_path / "cache"))

    def go(kind: str, name: str, *words: str, ranks: int = 1):
        teacher = files[kind].folder / "teacher"
        if not (teacher / "report.json").exists():
            first = start(
                teacher, *files[kind].settings, *SMALL, f"student.init={school.teacher}", "train.updates=4", config=config, task=True
            )
            assert first.wait() == [0], first.output
        settings = (*files[kind].settings, *SMALL, *DISTIL, f"teacher.model={teacher}/student", *words)
        return start(tmp_path / name, *settings, config=config, task=True, ranks=ranks)

    return go


def kept(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "cache" / teachers.FOLDER).glob("*.safetensors"))


def done(run) -> str:
    assert set(run.wait()) == {0}, run.output
    return run.output


@pytest.mark.parametrize("kind", KINDS)
def test_kept_outputs_give_the_losses_of_computed_ones(kind, run, tmp_path):
    done(run(kind, "computed", "train.updates=6", OFF))
    assert kept(tmp_path) == []
    assert "computing its outputs" in done(run(kind, "kept", "train.updates=6"))
    assert len(kept(tmp_path)) == 2  # the rows of train, and those of dev
    for one, other in zip(facts(tmp_path / "computed"), facts(tmp_path / "kept"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=2e-5)  # padding to other widths rounds otherwise
    first, second = (json.loads((tmp_path / name / "report.json").read_text()) for name in ("computed", "kept"))
    assert second["teachers"][0]["loss"] == pytest.approx(first["teachers"][0]["loss"], rel=1e-5)
    assert second["teachers"][0]["intervals"] == first["teachers"][0]["intervals"]


def test_a_second_run_reads_the_file_and_other_weights_are_another_file(run, files, tmp_path):
    done(run("classification", "first", "train.updates=6"))
    before = {path: path.stat().st_mtime_ns for path in kept(tmp_path)}
    assert "computing" not in done(run("classification", "second", "train.updates=6", "train.seed=5", "optimizer.learning_rate=1e-3"))
    assert {path: path.stat().st_mtime_ns for path in kept(tmp_path)} == before
    other = tmp_path / "other"
    shutil.copytree(files["classification"].folder / "teacher" / "student", other)
    weights = load_file(other / "model.safetensors")
    save_file(
        {name: weight * 1.5 if name == "classifier.weight" else weight for name, weight in weights.items()}, other / "model.safetensors"
    )
    assert "computing" in done(run("classification", "third", "train.updates=6", f"teacher.model={other}"))
    assert len(kept(tmp_path)) == 4
    again = [line["loss"] for line in facts(tmp_path / "third")]
    assert again[0] != pytest.approx(facts(tmp_path / "first")[0]["loss"], rel=1e-4)


def test_a_damaged_file_is_made_anew_and_said(run, tmp_path):
    done(run("classification", "first", "train.updates=6"))
    good = {path: path.read_bytes() for path in kept(tmp_path)}
    for path, content in good.items():
        path.write_bytes(content[:-4] + bytes(4))
    output = done(run("classification", "second", "train.updates=6"))
    assert "expected the values that were written, got others; they are computed anew" in output
    assert {path: path.read_bytes() for path in kept(tmp_path)} == good
    for path, content in good.items():
        path.write_bytes(content[:50])
    assert "they are computed anew" in done(run("classification", "third", "train.updates=6"))
    assert facts(tmp_path / "first") == facts(tmp_path / "second") == facts(tmp_path / "third")


@pytest.mark.parametrize("ranks", [1, 2])
def test_killed_runs_end_bit_identical_and_ranks_share_one_file(ranks, run, tmp_path):
    words = ("train.updates=14", "checkpoint.every_updates=4")
    done(run("tagging", "undisturbed", *words, ranks=ranks))
    before = {path.name: load_file(path)["outputs"] for path in kept(tmp_path)}
    first = run("tagging", "killed", *words, ranks=ranks)
    first.wait_for_update(6)
    first.signal(signal.SIGKILL)
    first.wait()
    shutil.rmtree(tmp_path / "cache")  # what the run began with is computed again
    assert "computing its outputs" in done(run("tagging", "killed", *words, ranks=ranks))
    assert facts(tmp_path / "killed") == facts(tmp_path / "undisturbed")
    expected, again = (load_file(tmp_path / name / "student" / "model.safetensors") for name in ("undisturbed", "killed"))
    assert all(torch.equal(weight, again[name]) for name, weight in expected.items())
    shutil.rmtree(tmp_path / "cache")
    done(run("tagging", "other", *words, ranks=3 - ranks))
    after = {path.name: load_file(path)["outputs"] for path in kept(tmp_path)}
    assert before.keys() == after.keys()
    assert all(torch.equal(values, after[name]) for name, values in before.items())


def test_a_run_of_less_than_an_epoch_computes_and_goes_on_so(run, tmp_path):
    words = ("train.updates=3", "checkpoint.every_updates=1", "report.every_updates=1")
    done(run("classification", "undisturbed", *words))
    first = run("classification", "killed", *words)
    first.wait_for_update(2)
    first.signal(signal.SIGKILL)
    first.wait()
    done(run("classification", "whole", "train.updates=8"))  # leaves a file
    done(run("classification", "killed", *words))
    assert facts(tmp_path / "killed") == facts(tmp_path / "undisturbed")


def test_a_folder_that_cannot_be_written_is_said_and_the_run_goes_on(run, tmp_path):
    (tmp_path / "cache").write_text("a file")
    assert "could not be written (Not a directory); they are kept in memory" in done(run("classification", "run", "train.updates=6"))


def test_hidden_states_run_the_teacher_and_a_phase_of_logits_reads_the_file(run, tmp_path):
    hidden = "{name: layers, updates: 2, objective: [{kind: hidden_mse}]}"
    phases = f"phases=[{hidden}, {{name: predictions, objective: [{{kind: soft_targets}}]}}]"
    done(run("classification", "computed", "train.updates=8", phases, OFF))
    output = done(run("classification", "kept", "train.updates=8", phases))
    assert "computing its outputs on 64 rows of train" in output
    for one, other in zip(facts(tmp_path / "computed"), facts(tmp_path / "kept"), strict=True):
        assert other["loss"] == pytest.approx(one["loss"], rel=1e-3, abs=1e-6)  # losses of 1e-5, after updates that round otherwise
    refused = run("classification", "refused", "objective=[{kind: hidden_mse}]", "train.updates=8", "teacher.cache_outputs=true")
    assert refused.wait() == [2]
    assert "teacher.cache_outputs: expected a term on the teacher's logits alone for true, got hidden_mse" in refused.output


def test_no_weights_of_the_teacher_are_loaded_where_all_outputs_are_kept(run, files, config, school, tmp_path, monkeypatch):
    words = ("train.updates=6", f"student.init={school.teacher}")
    done(run("classification", "first", *words))
    loaded = []
    monkeypatch.setattr(teachers, "load_task", lambda *arguments: loaded.append(arguments))
    teacher = files["classification"].folder / "teacher" / "student"
    settings = (*files["classification"].settings, *SMALL, *DISTIL, f"teacher.model={teacher}", *words, f"run.folder={tmp_path}/second")
    made = load_run(config, list(settings))
    process_group.start(60)
    try:
        parts = build_task(made, TaskSource.read(made), None)
    finally:
        process_group.stop()
    assert loaded == []
    assert parts.student["teachers"][0]["accuracy"] >= 0
    assert os.path.exists(parts.notes[-1].split(" are in ")[1])


def test_several_teachers_have_a_file_each_and_one_with_another_tokenizer_too(run, files, start, school, config, tmp_path, monkeypatch):
    done(run("classification", "one", "train.updates=6"))
    teacher = files["classification"].folder / "teacher" / "student"
    other = tmp_path / "other"
    shutil.copytree(teacher, other)
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"String": "a"}, "content": "e"}]}
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    both = f"teacher=[{{model: {teacher}, allow_untrained: true}}, {{model: {other}, allow_untrained: true}}]"
    settings = (*files["classification"].settings, *SMALL, "student.init=teacher", "student.architecture=same", both, "train.updates=6")
    output = done(start(tmp_path / "both", *settings, config=config, task=True))
    assert "teacher.1: computing its outputs" in output
    assert "teacher.0: computing" not in output
    assert len(kept(tmp_path)) == 4
    off = both.replace("allow_untrained: true", "allow_untrained: true, cache_outputs: false")
    done(start(tmp_path / "off", *settings, off, config=config, task=True))
    for one, other_line in zip(facts(tmp_path / "off"), facts(tmp_path / "both"), strict=True):
        assert other_line["loss"] == pytest.approx(one["loss"], rel=2e-5)
