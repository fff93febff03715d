"""`train.precision: auto` in whole runs: the words, the record, and the precision of a resumed run."""

import json
import shutil

import pytest
import torch
from run_lines import lines
from safetensors.torch import load_file

pytestmark = pytest.mark.slow
SETTINGS = ("train.updates=4", "checkpoint.every_updates=2", "report.every_updates=1", "evaluate.every_updates=null", "student.dropout=0.1")


def test_a_run_that_began_without_bf16_stays_in_fp32_on_any_machine(start, tmp_path, monkeypatch):
    whole = start(tmp_path / "whole", *SETTINGS)  # tiny.yaml says fp32
    assert whole.wait() == [0], whole.output
    run = tmp_path / "run"
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")  # a machine without bf16
    first = start(run, *SETTINGS, "train.precision=auto")
    assert first.wait() == [0], first.output
    reason = "the processor has none of amx_bf16, avx512_bf16, arm_bf16"
    assert json.loads((run / "environment.json").read_text())["precision"] == {"asked": "auto", "used": "fp32", "reason": reason}
    assert f"fp32 ({reason})" in lines(run, "event")[0]["message"]

    monkeypatch.delenv("ONEDNN_MAX_CPU_ISA")  # this machine, whatever it has
    shutil.rmtree(run / "checkpoints" / "update-00000004")
    shutil.rmtree(run / "student")
    planned = start(run, *SETTINGS, "train.precision=auto", arguments=("--dry-run",))
    assert planned.wait() == [0], planned.output
    assert "fp32: the run began with it" in planned.output  # not this machine's choice
    again = start(run, *SETTINGS, "train.precision=auto", arguments=("--resume",))
    assert again.wait() == [0], again.output
    assert json.loads((run / "environment.json").read_text())["precision"]["reason"] == "the run began with it"
    attention = json.loads((run / "environment.json").read_text())["attention"]
    assert attention["reason"] == "the run began with it"
    message = next(line["message"] for line in lines(run, "event") if line["event"] == "note" and line["message"].startswith("attention: "))
    assert message.startswith(f"attention: {attention['student']} (")
    assert any("fp32 (the run began with it)" in line["message"] for line in lines(run, "event") if line["event"] == "resumed")
    expected = load_file(tmp_path / "whole" / "student" / "model.safetensors")
    weights = load_file(run / "student" / "model.safetensors")
    # oneDNN may round otherwise without its later instruction sets; two updates in bf16 would differ by 1e-3
    assert all(torch.allclose(weight, expected[name], rtol=0, atol=2e-5) for name, weight in weights.items())
