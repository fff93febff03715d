"""Planned memory and time against measured runs: shapes, ranks, ZeRO stages, teacher modes, precisions and window lengths.

    python tests/benchmarks/bench_plan.py [--device FILE] [--only NAME…]   (20 minutes; writes tests/benchmarks/results/bench_plan.json)

Each run trains a few updates, evaluates and saves, in processes of its own with one thread each. Peaks are those of /proc, reset between
the moments. Times are CPU time of rank 0, because other processes take turns on the cores;
of two ranks, messages are part of it, and waiting is not. --device: a file of `stillhouse plan
--calibrate`; without it, the machine is calibrated first.
"""

import argparse
import json
import math
import os
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from bench_train import ROOT, prepare
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification

from data_shards.build.build import build
from data_shards.build.settings import BuildSettings
from data_shards.sources.settings import SourceSettings
from kd.models.config import quiet_transformers
from launcher.config.load import load_run
from launcher.planning.cost.collectives import update_collectives
from launcher.planning.cost.memory import plan_memory
from launcher.planning.cost.operations import compute_seconds
from launcher.planning.devices.devices import Device, device_of
from launcher.prepare import prepare as prepare_run
from launcher.process.rank_environment import rank_and_world
from launcher.process.start_ranks import child_environment, rank_environments
from launcher.training.batches import BatchLoader
from launcher.training.start import meet

RESULTS = Path(__file__).parent / "results" / "bench_plan.json"
UPDATES = 4
SHAPES = {"t12x256": (12, 256, 4), "t4x512": (4, 512, 8), "t4x320": (4, 320, 5), "t8x448": (8, 448, 7)}
LONG = ("data.window_tokens=512", "train.micro_batch=4")
RUNS: dict[str, tuple[int, tuple[str, ...]]] = {
    "6x384 fp32": (1, ("train.precision=fp32",)),
    "6x384 bf16": (1, ("train.precision=bf16",)),
    "6x384 fp32, 512": (1, (*LONG, "train.global_batch=8", "train.precision=fp32")),
    "6x384 bf16, 512": (1, (*LONG, "train.global_batch=8", "train.precision=bf16")),
    "12x256 fp32": (1, ("teacher.model=t12x256", "train.precision=fp32")),
    "4x512 bf16": (1, ("teacher.model=t4x512", "train.precision=bf16")),
    "6x384 fp32, checkpointing": (1, ("train.activation_checkpointing=true", "train.precision=fp32")),
    "6x384 bf16, ZeRO-2": (1, ("train.zero_stage=2", "train.micro_batch=4", "train.precision=bf16")),
    "6x384 fp32, cached": (1, ("teacher.mode=cached", "teacher.cache=cache", "train.updates=5", "train.precision=fp32")),
    "6x384 fp32, 2 ranks, zero3": (2, ("teacher.mode=zero3", "train.precision=fp32")),
    "6x384 bf16, 2 ranks, tensor parallel": (2, ("teacher.mode=tensor_parallel", "train.precision=bf16")),
    "6x384 fp32, 2 ranks, ZeRO-3": (2, ("train.zero_stage=3", "train.precision=fp32")),
    "6x384 fp32, 2 ranks, ZeRO-0": (2, ("train.zero_stage=0", "train.precision=fp32")),
    "12x256 bf16, 512, 2 ranks, zero3, ZeRO-2": (
        2,
        ("teacher.model=t12x256", *LONG, "train.global_batch=16", "teacher.mode=zero3", "train.zero_stage=2", "train.precision=bf16"),
    ),
    "4x512 fp32, masked positions, ZeRO-0": (
        1,
        ("teacher.model=t4x512", "objective.0.positions=masked", "train.zero_stage=0", "train.precision=fp32"),
    ),
    "12x256 fp32, 2 ranks, tensor parallel": (2, ("teacher.model=t12x256", "teacher.mode=tensor_parallel", "train.precision=fp32")),
    "4x320 fp32, 256": (1, ("teacher.model=t4x320", "data.window_tokens=256", "train.micro_batch=8", "train.precision=fp32")),
    "8x448 bf16, 256": (1, ("teacher.model=t8x448", "data.window_tokens=256", "train.micro_batch=8", "train.precision=bf16")),
    "4x320 bf16, 256, 2 ranks": (2, ("teacher.model=t4x320", "data.window_tokens=256", "train.micro_batch=4", "train.precision=bf16")),
    "8x448 fp32, 2 ranks": (2, ("teacher.model=t8x448", "train.micro_batch=8", "train.precision=fp32")),
    "4x512 bf16, 512": (1, ("teacher.model=t4x512", *LONG, "train.micro_batch=8", "train.global_batch=8", "train.precision=bf16")),
}
TASKS: dict[str, tuple[int, tuple[str, ...]]] = {
    "task, 6x384 fp32, outputs kept": (1, ("train.precision=fp32",)),
    "task, 6x384 bf16, outputs kept": (1, ("train.precision=bf16",)),
    "task, 6x384 fp32, hidden states": (1, ("objective=[{kind: task_loss}, {kind: cosine, weight: 1.0}]", "train.precision=fp32")),
    "task, 6x384 bf16, hidden states, 2 ranks": (
        2,
        ("objective=[{kind: task_loss}, {kind: cosine, weight: 1.0}]", "train.micro_batch=16", "train.precision=bf16"),
    ),
    "task, 6x384 fp32, no teacher": (
        1,
        ("teacher=null", "student.init=task-teacher", "objective=[{kind: task_loss}]", "train.precision=fp32"),
    ),
}
"""Runs on a classification of 1,000 rows of 20 to 200 words."""
TASK_CONFIG = """
run: {{folder: {folder}/task-run}}
data: {{kind: classification, train: {folder}/rows.jsonl, dev: {folder}/dev.jsonl, max_length: 256}}
student: {{layers: every_other, dropout: 0.0}}
teacher: {{model: {folder}/task-teacher, allow_untrained: true}}
train: {{global_batch: 32, micro_batch: 32, epochs: 3}}
"""
CONFIG = """
run: {{folder: {folder}/run}}
data: {{shards: {folder}/shards, window_tokens: 128}}
student: {{layers: every_other, dropout: 0.0}}
teacher: {{model: {folder}/teacher}}
objective:
  - {{kind: soft_targets, weight: 5.0, temperature: 2.0}}
  - {{kind: mlm, weight: 2.0}}
  - {{kind: cosine, weight: 1.0}}
train: {{global_batch: 32, micro_batch: 16, updates: 20}}
evaluate: {{windows: 64}}
"""


def make_files(folder: Path) -> None:
    """The teachers, shards with a held-out part, and the configuration of all runs."""
    prepare(folder)
    for name, (layers, width, heads) in SHAPES.items():
        subprocess.run(["cp", "-r", str(folder / "teacher"), str(folder / name)], check=True)
        torch.manual_seed(7)
        sizes = {"hidden_size": width, "num_hidden_layers": layers, "num_attention_heads": heads, "intermediate_size": 4 * width}
        with quiet_transformers():
            BertForMaskedLM(BertConfig(vocab_size=30522, **sizes)).save_pretrained(folder / name)
    subprocess.run(["rm", "-r", str(folder / "shards")], check=True)
    source = SourceSettings(path=str(folder / "texts.txt"))
    build(BuildSettings(sources=(source,), tokenizer=str(folder / "teacher"), heldout=0.05), folder / "shards")
    (folder / "run.yaml").write_text(CONFIG.format(folder=folder))


def make_task_files(folder: Path) -> None:
    """Rows of two labels, a teacher with a head of its own, and the configuration of all task runs."""
    subprocess.run(["cp", "-r", str(folder / "teacher"), str(folder / "task-teacher")], check=True)
    body = BertForMaskedLM.from_pretrained(folder / "teacher").config
    body.id2label, body.label2id = {0: "good", 1: "bad"}, {"good": 0, "bad": 1}
    torch.manual_seed(7)
    with quiet_transformers():
        BertForSequenceClassification(body).save_pretrained(folder / "task-teacher")
    draw = random.Random(7)
    for name, count in (("rows", 1000), ("dev", 200)):
        rows = [
            {"text": " ".join(f"w{draw.randrange(30000)}" for _ in range(words)), "label": draw.choice(["good", "bad"])}
            for words in (draw.randint(20, 200) for _ in range(count))
        ]
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "task.yaml").write_text(TASK_CONFIG.format(folder=folder))


def words_of(folder: Path, words: tuple[str, ...]) -> list[str]:
    """Settings with the folder's models."""
    named = [word.partition("=") for word in words]
    return [
        f"{key}={folder / value}" if key in ("teacher.model", "teacher.cache", "student.init") else f"{key}={value}"
        for key, _, value in named
    ]


def run_child(config: str, words: list[str]) -> dict[str, Any]:
    """On one rank: peaks in MB by moment, CPU and wall seconds of each update."""
    peaks: dict[str, float] = {}
    rank, world = rank_and_world()
    run_config = load_run(config, words)
    prepared = prepare_run(run_config, world)
    meet(300.0)
    _take_peak()
    parts = prepared.data.build(None, None)
    peaks["build"] = _take_peak()
    loader = BatchLoader(parts.stream, run_config.train, rank=rank, world=world, update=0, windows=0, to_batch=parts.to_batch)
    times = []
    for number in range(UPDATES):
        batches = loader.next_update()
        cpu, wall = time.process_time(), time.perf_counter()
        parts.trainer.update(batches, look=number == UPDATES - 1)  # a report line's numbers, once
        times.append((time.process_time() - cpu, time.perf_counter() - wall))
        peaks["update"] = max(peaks.get("update", 0.0), _take_peak())
    loader.close()
    assert parts.score is not None
    student = parts.trainer.snapshot(torch.bfloat16 if parts.precision == "bf16" else torch.float32)
    parts.score(student, False, lambda: None)
    del student
    peaks["evaluate"] = _take_peak()
    with tempfile.TemporaryDirectory() as folder:
        parts.trainer.save(Path(folder), {})
    peaks["save"] = _take_peak()
    return {"rank": rank, "peaks": peaks, "times": times}


def _take_peak() -> float:
    """MB of the largest resident size since the last call."""
    match = re.search(r"^VmHWM:\s*(\d+)", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert match is not None
    Path("/proc/self/clear_refs").write_text("5")
    return int(match[1]) * 1024 / 1e6


def measured(config: Path, ranks: int, words: list[str]) -> dict[str, Any]:
    """The result of rank 0."""
    command = [sys.executable, __file__, "--child", json.dumps([str(config), words])]
    base = child_environment() | {"OMP_NUM_THREADS": "1"}
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=base | own) for own in rank_environments(ranks)]
    outputs = [process.communicate()[0] for process in started]
    return next(json.loads(line[7:]) for line in outputs[0].splitlines() if line.startswith("RESULT "))


def compared(config: Path, ranks: int, words: list[str], result: dict[str, Any], device: Device) -> dict[str, Any]:
    """Plan and measurement of one run. The time of a task is not compared: its rows have different lengths."""
    need = prepare_run(load_run(str(config), words), ranks).plan.memory_need
    assert need is not None
    work = need.work
    memory = plan_memory(work, device)
    peak = max(result["peaks"].values())
    compute = sum(compute_seconds(work, device).values()) if work.task is None else math.nan
    links = sum(update_collectives(work, device, ranks).values())
    cpu = statistics.median(one for one, _ in result["times"][:-1])
    return {
        "memory_planned_mb": memory.peak.total / 1e6,
        "memory_measured_mb": peak,
        "memory_ratio": memory.peak.total / 1e6 / peak,
        "by_part_mb": {one.name: {part: round(size / 1e6) for part, size in one.parts.items()} for one in memory.moments},
        "peaks_mb": result["peaks"],
        "by_moment": {name: memory[name].total / 1e6 / value for name, value in result["peaks"].items()},
        "seconds_planned": compute,
        "seconds_of_collectives_planned": links,
        "cpu_seconds_measured": cpu,
        "time_ratio": (compute + links) / cpu,
        "wall_per_cpu": statistics.median(wall / one for one, wall in result["times"]),
    }


def main() -> None:
    """Measure, compare, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default=None)
    parser.add_argument("--only", nargs="*", default=None)
    parser.add_argument("--child", default=None, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print("RESULT", json.dumps(run_child(*json.loads(arguments.child))), flush=True)
        os._exit(0)
    os.environ["OMP_NUM_THREADS"] = "1"
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        file = arguments.device or str(folder / "device.yaml")
        if arguments.device is None:
            command = [sys.executable, "-m", "launcher.cli", "plan", "--calibrate", "--out", file]
            subprocess.run(command, check=True, cwd=ROOT, env=child_environment() | {"OMP_NUM_THREADS": "1"})
        device, rows = device_of(file), {}
        make_task_files(folder)
        for run, (ranks, words) in (RUNS | TASKS).items():
            if arguments.only is None or run in arguments.only:
                own, config = words_of(folder, words), folder / ("task.yaml" if run in TASKS else "run.yaml")
                if "teacher.mode=cached" in own:
                    command = [sys.executable, "-m", "launcher.cli", "cache", "--config", str(config), *own]
                    subprocess.run(command, check=True, cwd=ROOT, env=child_environment(), stdout=subprocess.DEVNULL)
                rows[run] = compared(config, ranks, own, measured(config, ranks, own), device)
                one = rows[run]
                moments = ", ".join(f"{name} {ratio:.2f}" for name, ratio in one["by_moment"].items())
                write_results(device, rows)
                wall = f"wall/CPU {one['wall_per_cpu']:.2f}"
                print(f"{run:<44} memory {one['memory_ratio']:.2f} ({moments})  time {one['time_ratio']:.2f} ({wall})", flush=True)


def write_results(device: Device, rows: dict[str, Any]) -> None:
    """Write what is known so far."""
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps({"device": device.model_dump(mode="json"), "runs": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
