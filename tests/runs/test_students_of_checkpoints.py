"""`stillhouse student` writes the student of a checkpoint, which loads with transformers alone."""

from pathlib import Path

import pytest
import torch
from run_lines import lines
from safetensors.torch import load_file
from transformers import AutoModelForMaskedLM

from launcher import cli
from launcher.commands.parser import parser
from launcher.process.error_exit import guarded
from launcher.retention.start import read_start

pytestmark = pytest.mark.slow


def student(*words: str) -> int:
    return guarded(cli._dispatch, parser().parse_args(["student", *words]))


def test_the_student_of_each_checkpoint(start, tmp_path: Path, capsys):
    folder = tmp_path / "run"
    run = start(folder, "train.updates=6", "checkpoint.every_updates=2", "checkpoint.keep_last=3")
    assert run.wait() == [0], run.output
    capsys.readouterr()
    assert student(str(folder), "--out", str(tmp_path / "last")) == 0
    last, own = load_file(tmp_path / "last" / "model.safetensors"), load_file(folder / "student" / "model.safetensors")
    assert last.keys() == own.keys()
    assert all(torch.equal(last[name], own[name]) for name in own)
    assert (tmp_path / "last" / "tokenizer.json").read_bytes() == (folder / "student" / "tokenizer.json").read_bytes()

    assert student(str(folder), "--update", "2", "--out", str(tmp_path / "second")) == 0
    tokens = next(line["tokens"] for line in lines(folder, "train") if line["update"] == 2)
    assert f"student after update 2 of {folder}, {tokens:,} tokens, written to {tmp_path / 'second'}" in capsys.readouterr().out
    model = AutoModelForMaskedLM.from_pretrained(tmp_path / "second")
    assert any(not torch.equal(weight, own[name]) for name, weight in model.state_dict().items() if name in own)
    assert read_start("start", str(tmp_path / "second")).tokens == tokens

    assert student(str(folder), "--update", "3", "--out", str(tmp_path / "third")) == 2
    assert "expected a checkpoint of" in (said := capsys.readouterr().err)
    assert ": 2, 4, 6; got 3; choose one of these" in said
    assert not (tmp_path / "third").exists()
    assert student(str(folder), "--out", str(tmp_path / "last")) == 2
    assert "expected a free name or an empty folder" in capsys.readouterr().err


def test_a_folder_without_a_run_or_without_a_checkpoint_is_one_line(start, school, tmp_path: Path, capsys):
    assert student(str(school.teacher), "--out", str(tmp_path / "out")) == 2
    assert "expected a run folder, got one without config.yaml; check the path" in capsys.readouterr().err
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("")
    assert student(str(tmp_path / "run"), "--out", str(tmp_path / "out")) == 2
    assert "expected a checkpoint, got none; let the run write one" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
