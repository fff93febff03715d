"""`stillhouse latency`: torch and ONNX in turns, and a verdict only where the core was free."""

import json
import os

import pytest

from launcher.commands.parser import parser
from launcher.deployment.export import run as export
from launcher.deployment.speed import measure
from launcher.deployment.timing.latency import _verdict, run
from launcher.errors import LaunchError

pytestmark = pytest.mark.tasks


def row(form: str, p95: float, wall_per_cpu: float = 1.0) -> dict:
    return {"model": "m", "form": form, "p95_ms": p95, "wall_per_cpu": wall_per_cpu, "trusted": wall_per_cpu <= 1.2}


@pytest.mark.slow
def test_torch_and_onnx_are_measured_at_each_setting(corpus, tmp_path, capsys):
    export(parser().parse_args(["export", str(corpus.model), "--out", str(tmp_path / "out")]))
    words = [str(corpus.model), str(tmp_path / "out"), "--batch", "1,2", "--length", "8,16", "--repetitions", "5"]
    assert run(parser().parse_args(["latency", *words, "--json", str(tmp_path / "made.json"), "--target-ms", "10000"])) == 0
    made = json.loads((tmp_path / "made.json").read_text())
    assert {one["form"] for one in made["rows"]} == {"torch fp32", "torch bf16", "onnx fp32"}
    assert len(made["rows"]) == 3 * 4
    for one in made["rows"]:
        assert 0 < one["p50_ms"] <= one["p95_ms"] <= one["p99_ms"]
        assert one["rows_per_second"] == pytest.approx(1000 * one["batch"] / one["p50_ms"])
    assert made["versions"]["onnxruntime"]
    assert "target 10000 ms" in made["verdict"]
    assert made["verdict"] in capsys.readouterr().out


def test_a_target_is_answered_by_the_slowest_setting():
    rows = [row("onnx int8", 3.0), row("onnx int8", 9.0), row("onnx fp32", 8.0), row("torch fp32", 20.0)]
    assert (
        _verdict(rows, 10) == "target 10 ms at p95 is met by: m (onnx fp32, 8.00 ms), m (onnx int8, 9.00 ms); the fastest is m (onnx fp32)"
    )
    assert _verdict(rows, 5) == "target 5 ms at p95: no model meets it; the nearest is m (onnx fp32) with 8.00 ms"


def test_no_verdict_where_others_had_the_core():
    line = _verdict([row("onnx fp32", 8.0), row("onnx int8", 3.0, wall_per_cpu=1.5)], 10)
    assert line == (
        "target 10 ms: no verdict: wall time was up to 1.50 times CPU time, so other processes had the core; stop them and measure again"
    )


def test_models_run_in_turns_after_a_warm_up():
    calls = []

    class Recorded:
        def __init__(self, name):
            self.name = name

        def run(self, _arrays):
            calls.append(self.name)
            return []

    timings = measure([Recorded("a"), Recorded("b")], [[], []], 4)
    assert "".join(calls) == "aaabbb" + "ab" * 4
    assert [len(timing.wall) for timing in timings] == [4, 4]


def test_impossible_settings_are_one_line(corpus):
    with pytest.raises(LaunchError, match=rf"^--threads 4096: expected at most {os.cpu_count()}, the cores of this machine; use fewer$"):
        run(parser().parse_args(["latency", "m", "--threads", "4096"]))
    with pytest.raises(LaunchError, match=r"^--length 4096: expected at most 48, the positions of .*; use shorter inputs$"):
        run(parser().parse_args(["latency", str(corpus.model), "--length", "4096"]))
