"""Every door starts the same run: deepspeed's launcher, torchrun, `stillhouse train`; and what a run leaves is what others can read."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from run_lines import free_port, train_lines
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
from wandb_server import inspected

from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
SETTINGS = ("train.updates=6", "train.global_batch=8", "checkpoint.every_updates=6", "report.every_updates=1")


@pytest.fixture
def settings(school, tmp_path, start):
    """key=value words for a run in a folder of that name."""
    return lambda name, *more: [
        *SETTINGS,
        f"run.folder={tmp_path / name}",
        f"data.shards={school.shards}",
        f"teacher.model={school.teacher}",
        *more,
    ]


@pytest.fixture
def compilers(tmp_path):
    """Stand-ins for compilers and ninja that write down their calls and fail, and an empty folder for torch's C++ extensions."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("c++", "g++", "gcc", "cc", "clang", "clang++", "nvcc", "ninja"):
        (tools / name).write_text(f'#!/bin/sh\necho "$0 $*" >>{tmp_path}/compiled\nexit 1\n')
        (tools / name).chmod(0o755)
    return {"PATH": f"{tools}:{os.environ['PATH']}", "TORCH_EXTENSIONS_DIR": str(tmp_path / "extensions")}


def test_deepspeed_and_stillhouse_start_the_same_run_and_compile_nothing(settings, compilers, tmp_path):
    """Another kind of teacher behind each door."""
    script = str(ROOT / "launcher" / "run.py")
    more = ["train.updates=40", "checkpoint.every_updates=10", "evaluate.every_updates=null"]
    own = {"OMP_NUM_THREADS": "1", "NO_COLOR": "1", "PYTHONPATH": str(ROOT), **compilers}
    deepspeed = [sys.executable, "-m", "deepspeed.launcher.runner", "--num_accelerators=2", f"--master_port={free_port()}", script]
    doors = {
        "deepspeed": (deepspeed, "zero3"),
        "alone": ([sys.executable, "-m", "launcher.cli", "train"], "replicated"),
    }
    for name, (door, mode) in doors.items():
        output = tmp_path / f"{name}.log"
        words = ["--config", "tiny", *settings(name, *more, f"teacher.mode={mode}")]
        with output.open("w") as file:
            process = subprocess.Popen([*door, *words], cwd=tmp_path, env=os.environ | own, stdout=file, stderr=file)
        try:
            assert process.wait(240) == 0, f"{name}: {output.read_text()}"
        finally:
            process.kill()
            process.wait()
        assert "held-out loss" in output.read_text()
        assert not (tmp_path / "compiled").exists(), f"{name}: {(tmp_path / 'compiled').read_text()}"
        assert not (tmp_path / "extensions").exists(), f"{name}: {list((tmp_path / 'extensions').rglob('*'))}"
        assert [line["update"] for line in train_lines(tmp_path / name)] == list(range(1, 41))
        assert (tmp_path / name / "student" / "model.safetensors").exists()
    expected = [line["loss"] for line in train_lines(tmp_path / "alone")]
    found = [line["loss"] for line in train_lines(tmp_path / "deepspeed")]
    assert found[:6] == pytest.approx(expected[:6], rel=1e-5)
    assert found == pytest.approx(expected, rel=1e-3)  # rounding grows with every update
    report = json.loads((tmp_path / "deepspeed" / "report.json").read_text())
    assert (report["ranks"], report["updates"]) == (2, 40)
    check_student(tmp_path / "alone", settings("x")[5].removeprefix("data.shards="))


def check_student(folder: Path, shards: str) -> None:
    """transformers alone reads the student, and an independent float64 loop finds the held-out loss that the report states."""
    model, loading = AutoModelForMaskedLM.from_pretrained(folder / "student", output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    AutoTokenizer.from_pretrained(folder / "student")
    model.eval().double()
    stream = Stream(shards, "heldout", StreamSettings(window_tokens=32, lanes=4), 1)
    total, first, count = 0.0, 0, 0
    for rows in stream.sequential(8):
        ids, labels, positions, segments = (
            torch.from_numpy(getattr(rows, name).astype("int64")) for name in ("input_ids", "labels", "positions", "segments")
        )
        mask = segments[:, None, :, None] == segments[:, None, None, :]
        with torch.no_grad():
            logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits[labels >= 0]
        wanted = labels[labels >= 0]
        total += float(F.cross_entropy(logits, wanted, reduction="sum"))
        first += int((logits.argmax(-1) == wanted).sum())
        count += len(wanted)
    heldout = json.loads((folder / "report.json").read_text())["heldout"]
    assert heldout["tokens"] == count
    assert heldout["loss"] == pytest.approx(total / count, rel=1e-5)
    assert heldout["top1"] == pytest.approx(first / count, abs=1e-9)


def test_a_run_without_a_teacher_adapts_a_new_head_and_its_student_teaches(start, school, tmp_path):
    """The way to a teacher for an encoder without a head: head alone, then all; then it can be a teacher."""
    headless = tmp_path / "headless"
    AutoModel.from_pretrained(school.teacher, add_pooling_layer=False).save_pretrained(headless)
    mlm = ["teacher=null", "objective=[{kind: mlm}]", *SETTINGS]
    head = start(tmp_path / "head", f"student.init={headless}", "student.new_head=true", "student.trainable=head", *mlm)
    assert head.wait() == [0], head.output
    whole = start(tmp_path / "whole", f"student.init={tmp_path / 'head' / 'student'}", *mlm)
    assert whole.wait() == [0], whole.output
    before = AutoModelForMaskedLM.from_pretrained(tmp_path / "head" / "student")
    encoder = AutoModel.from_pretrained(headless, add_pooling_layer=False)
    for name, weight in encoder.named_parameters():
        assert torch.equal(weight, before.base_model.get_parameter(name)), f"{name} moved while the head alone trained"
    taught = start(tmp_path / "taught", f"teacher.model={tmp_path / 'whole' / 'student'}", *SETTINGS)
    assert taught.wait() == [0], taught.output
    refused = start(tmp_path / "refused", f"teacher.model={headless}", *SETTINGS)
    assert refused.wait() == [2]
    assert "expected a model with a masked-LM head" in refused.output
    assert "Traceback" not in refused.output


def test_an_offline_wandb_run_continues_its_curve_under_one_id(start, tmp_path):
    folder = tmp_path / "watched"
    watched = (*SETTINGS, "train.updates=80", "report.wandb=offline")
    first = start(folder, *watched, "checkpoint.every_updates=null", "checkpoint.every_minutes=0.0001")
    first.wait_for_update(4)
    first.signal(signal.SIGTERM)
    assert first.wait() == [75], first.output
    assert list((folder / "checkpoints").glob("update-*")), "the clock alone said save"
    second = start(folder, *watched, "checkpoint.every_updates=40")
    assert second.wait() == [0], second.output
    files = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))
    run_id = (folder / "wandb_id").read_text().strip()
    assert {file.stem for file in files} == {f"run-{run_id}"}
    assert len(files) == 2
    truth = {line["update"]: line["loss"] for line in train_lines(folder)}
    assert list(truth) == list(range(1, 81))
    rows = [record["history"]["item"] for record in inspected(files[1]) if record["type"] == "history"]
    curve = {row["update"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert max(curve) == 80
    assert curve == {update: truth[update] for update in curve}


def test_another_configuration_in_the_same_folder_is_refused_with_the_difference(start, tmp_path):
    folder = tmp_path / "run"
    assert start(folder, *SETTINGS).wait() == [0]
    before = (folder / "metrics.jsonl").read_bytes()
    other = start(folder, *SETTINGS, "train.clip=1.0", ranks=2)
    assert other.wait() == [2, 2]
    assert "train.clip: 5.0 -> 1.0" in other.output
    assert other.output.count("stillhouse:") == 1, "one rank speaks for all"
    assert (folder / "metrics.jsonl").read_bytes() == before
    again = start(folder, *SETTINGS)
    assert again.wait() == [0]
    assert "already done" in again.output
    assert (folder / "metrics.jsonl").read_bytes() == before
