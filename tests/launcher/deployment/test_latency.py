"""`stillhouse latency`: torch and ONNX in turns, and a verdict only where the core was free."""

import json
import os
import shutil
import statistics

import numpy as np
import pytest
from transformers import AutoConfig

from kd.errors import KdError
from kd.models.config import quiet_transformers
from kd.tasks.model import MODEL_CLASSES, set_labels
from launcher.commands.parser import parser
from launcher.deployment.export import run as export
from launcher.deployment.speed import Timing, measure
from launcher.deployment.timing.candidates import Candidate, Quality, candidates_of, letters
from launcher.deployment.timing.figures import row_of, verdict_of
from launcher.deployment.timing.latency import run
from launcher.deployment.timing.table import milliseconds
from launcher.errors import LaunchError
from stillhouse.files import sha256_of_file

pytestmark = pytest.mark.tasks


def latency(*words) -> int:
    return run(parser().parse_args(["latency", *map(str, words)]))


def candidate(letter: str, form: str, accuracy: float | None = None, data: str = "80 rows of dev") -> Candidate:
    return Candidate(letter, f"m{letter}", form, 100, 64, 1000, {}, None if accuracy is None else Quality("accuracy", accuracy, data))


def row(letter: str, form: str, p95: float, wall_per_cpu: float = 1.0, threads: int = 1, high: float = 0.0) -> dict:
    shape = {"batch": 1, "length": 16, "threads": threads}
    noise = {"wall_per_cpu": wall_per_cpu, "trusted": wall_per_cpu <= 1.2, "p95_interval_ms": [p95, high or p95]}
    return {"letter": letter, "form": form, "p95_ms": p95, **shape, **noise}


@pytest.fixture(scope="module")
def exported(corpus, tmp_path_factory):
    folder = tmp_path_factory.mktemp("latency") / "out"
    export(parser().parse_args(["export", str(corpus.model), "--out", str(folder)]))
    return folder


@pytest.mark.slow
def test_torch_and_onnx_are_measured_at_each_setting(corpus, exported, tmp_path, capsys):
    words = ["--batch", "1,2", "--length", "8,16", "--repetitions", 5, "--plot", tmp_path / "made.png"]
    assert latency(corpus.model, exported, *words, "--json", tmp_path / "made.json", "--target-ms", 10000) == 0
    made = json.loads((tmp_path / "made.json").read_text())
    assert {one["form"] for one in made["rows"]} == {"torch fp32", "torch bf16", "onnx fp32"}
    assert len(made["rows"]) == 3 * 4
    for one in made["rows"]:
        assert 0 < one["p50_ms"] <= one["p95_ms"] <= one["p99_ms"]
        assert one["p50_interval_ms"][0] <= one["p50_ms"] <= one["p50_interval_ms"][1]
        assert one["first_ms"] > 0
        assert one["rows_per_second"] == pytest.approx(1000 * one["batch"] / one["p50_ms"])
        assert one["tokens_per_second"] == pytest.approx(one["rows_per_second"] * one["length"])
    assert [one["letter"] for one in made["models"]] == ["A", "B", "C"]
    assert made["models"][2]["files"] == {"model.onnx": sha256_of_file(exported / "model.onnx")}
    assert made["models"][2]["bytes"] == (exported / "model.onnx").stat().st_size
    assert made["versions"]["onnxruntime"]
    assert "target 10000 ms" in made["verdict"]
    told = capsys.readouterr()
    assert made["verdict"] in told.out
    assert f"C  {exported}: onnx fp32" in told.out
    assert "-".join(map(milliseconds, made["rows"][0]["p50_interval_ms"])) in told.out, "the interval is in the table"
    assert "3 models at 4 settings, 5 times each" in told.err
    assert (tmp_path / "made.png").read_bytes().startswith(b"\x89PNG\r\n")


def test_percentiles_and_throughput_of_known_times():
    seconds = [0.001 * number for number in range(1, 102)]  # 1 .. 101 ms
    made = row_of(
        candidate("A", "onnx fp32"), Timing(np.array(seconds) / 2, np.array(seconds), 0.5), {"batch": 4, "length": 8, "threads": 1}
    )
    assert made["p50_ms"] == pytest.approx(1000 * statistics.median(seconds))
    assert [made["p95_ms"], made["p99_ms"], made["first_ms"]] == pytest.approx([96.0, 100.0, 500.0])
    assert made["rows_per_second"] == pytest.approx(4 / 0.051)
    assert [made["wall_per_cpu"], made["trusted"]] == [pytest.approx(2.0), False]
    draws = np.random.default_rng(5).choice(seconds, (2000, 101))  # an interval by another generator and another loop
    low, high = np.quantile([statistics.median(draw) for draw in draws], (0.025, 0.975))
    assert made["p50_interval_ms"] == pytest.approx([1000 * low, 1000 * high], abs=2.5)  # two bootstraps of 1,000 and 2,000 draws


def test_a_target_is_answered_by_the_slowest_setting():
    models = [candidate("A", "torch fp32"), candidate("B", "onnx fp32"), candidate("C", "onnx int8")]
    rows = [row("C", "onnx int8", 3.0), row("C", "onnx int8", 9.0), row("B", "onnx fp32", 8.0), row("A", "torch fp32", 20.0)]
    answer = verdict_of(rows, models, 10)
    met = "target 10 ms at p95 is met by: B onnx fp32 (8.00 ms), C onnx int8 (9.00 ms)"
    assert answer.text == f"{met}; the fastest is B onnx fp32; no quality was measured"
    assert (answer.met, answer.best) == (["B", "C"], "B")
    assert verdict_of(rows, models, 5).text == "target 5 ms at p95: no model meets it; the nearest is B onnx fp32 with 8.00 ms"


def test_the_best_of_the_models_that_meet_a_target_is_the_one_with_the_best_metric():
    rows = [row("A", "torch fp32", 9.0), row("B", "onnx int8", 3.0), row("C", "onnx int8", 4.0, high=10.5), row("D", "onnx fp32", 5.0)]
    models = [candidate("A", "torch fp32", 0.99), candidate("B", "onnx int8", 0.84), candidate("C", "onnx int8", 0.86)]
    answer = verdict_of(rows, [*models, candidate("D", "onnx fp32")], 8)
    assert answer.best == "C", "A has the best metric, but is too slow"
    assert "the best of them is C onnx int8 (accuracy 0.8600, 80 rows of dev), the fastest is B onnx int8" in answer.text
    assert "within noise of the target: C onnx int8" in answer.text
    assert answer.text.endswith("quality not measured: D onnx fp32")
    other = [*models[:2], candidate("C", "onnx int8", 0.86, "100 rows of dev")]
    assert "the fastest is B onnx int8; their metrics were measured on different data" in verdict_of(rows[:3], other, 8).text


def test_no_verdict_where_others_had_the_core():
    rows = [row("A", "onnx fp32", 8.0), row("B", "onnx int8", 3.0, wall_per_cpu=1.5)]
    answer = verdict_of(rows, [candidate("A", "onnx fp32"), candidate("B", "onnx int8")], 10)
    assert answer.text == (
        "target 10 ms: no verdict: wall time was up to 1.50 times CPU time (B onnx int8, 1 x 16 tokens, 1 thread), "
        "so other processes had the core; stop them and measure again"
    )
    assert (answer.met, answer.best) == (None, None)
    several = verdict_of([row("A", "onnx fp32", 8.0, threads=2)], [candidate("A", "onnx fp32")], 10)
    assert several.text.endswith("with several threads, wall time over CPU time does not show processes that had one of the cores")


def test_models_run_in_turns_after_a_warm_up():
    calls, repetitions = [], []

    class Recorded:
        def __init__(self, name):
            self.name = name

        def run(self, _arrays):
            calls.append(self.name)
            return []

    timings = measure([Recorded("a"), Recorded("b")], [[], []], 4, advance=lambda: repetitions.append(len(calls)))
    assert "".join(calls) == "aaabbb" + "ab" * 4
    assert [len(timing.wall) for timing in timings] == [4, 4]
    assert repetitions == [8, 10, 12, 14]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["classification", "multi_label", "regression", "tagging", "question_answering"])
def test_a_folder_of_each_kind_is_measured(corpus, tmp_path, kind):
    config = AutoConfig.from_pretrained(corpus.model)
    set_labels(config, kind, ["O", "B-X"] if kind in ("classification", "multi_label", "tagging") else [])
    with quiet_transformers():
        MODEL_CLASSES[kind].from_config(config).save_pretrained(tmp_path)
    assert latency(tmp_path, "--length", 8, "--repetitions", 5, "--json", tmp_path / "made.json") == 0
    assert [one["form"] for one in json.loads((tmp_path / "made.json").read_text())["rows"]] == ["torch fp32", "torch bf16"]


def test_the_quality_of_a_run_is_that_of_its_report_while_the_weights_are_the_same(corpus, tmp_path):
    student = shutil.copytree(corpus.model, tmp_path / "student")
    files = {"model.safetensors": sha256_of_file(student / "model.safetensors")}
    report = {"task": {"metric": "accuracy"}, "dev": {"accuracy": 0.75, "rows": 80}, "files": files}
    (tmp_path / "report.json").write_text(json.dumps(report))
    fp32, bf16 = candidates_of([str(student)])
    assert fp32.quality == Quality("accuracy", 0.75, "80 rows of dev")
    assert bf16.quality is None, "it was measured in fp32"
    (tmp_path / "report.json").write_text(json.dumps(report | {"files": {"model.safetensors": "0" * 64}}))
    assert candidates_of([str(student)])[0].quality is None


def test_impossible_settings_are_one_line(corpus, tmp_path):
    with pytest.raises(LaunchError, match=rf"^--threads 4096: expected at most {os.cpu_count()}, the cores of this machine; use fewer$"):
        latency("m", "--threads", 4096)
    with pytest.raises(LaunchError, match=r"^--length 4096: expected at most 48, the positions of .*; use shorter inputs$"):
        latency(corpus.model, "--length", 4096)
    with pytest.raises(LaunchError, match=r"^--json .*/no/x\.json: expected the name of a file in a folder that exists, got no"):
        latency("m", "--json", tmp_path / "no" / "x.json")
    with pytest.raises(LaunchError, match=r"^--plot .*: expected the name of a file in a folder that exists, got a folder"):
        latency("m", "--plot", tmp_path)
    with pytest.raises(KdError, match=r"none: expected a model folder, got nothing there; check the path$"):
        latency(tmp_path / "none")


@pytest.mark.slow
def test_an_onnx_file_that_was_cut_is_one_line(exported, tmp_path):
    cut = shutil.copytree(exported, tmp_path / "cut")
    (cut / "model.onnx").write_bytes((exported / "model.onnx").read_bytes()[:-100])
    with pytest.raises(LaunchError, match=r"model\.onnx: expected sha256 .* as exported, got .*; export the model again$"):
        latency(cut)


def test_times_have_three_digits():
    assert [milliseconds(value) for value in (0.123, 9.99, 9.996, 99.94, 99.96, 1234.5)] == ["0.12", "9.99", "10.0", "99.9", "100", "1234"]


def test_letters_go_on_after_z():
    assert [letters(number) for number in (0, 25, 26, 51, 52)] == ["A", "Z", "AA", "AZ", "BA"]
