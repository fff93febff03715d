"""`stillhouse plan --calibrate`: the rates of this machine, measured in about a minute, as a device file for `--gpu`.

Each rate is the median of a few repetitions. With one thread it is CPU time, which other processes lengthen little, else wall time. Nothing
here is a model of the planner: the operations are those that an update consists of.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import BertConfig, DistilBertConfig

import launcher.training.session  # noqa: F401 (the libraries of a run are in memory while they are measured)
from kd.distributed import process_group
from kd.models.loading import untrained
from launcher.benchmarks import rates
from launcher.benchmarks.engine_costs import engine_costs
from launcher.benchmarks.two_ranks import two_ranks
from launcher.errors import LaunchError
from launcher.planning.devices.devices import DEVICES, Device, Measured, device_text
from launcher.planning.devices.this_device import group_limit
from launcher.process.machine import processor
from launcher.process.preflight import check_writable
from launcher.process.standard_streams import say
from launcher.process.start_ranks import Processes, child_environment
from launcher.process.steps import step
from stillhouse.files import write_atomically

PRECISIONS = ("fp32", "bf16")
WIDTHS = (256, 512, 1024)
WINDOWS = (128, 512)
DOCUMENTS = (32, 128, 512)
"""Positions of documents that are computed apart."""
PATIENCE_SECONDS = 120.0


def run(arguments: argparse.Namespace) -> int:
    """Measure, print the figures, and write the file."""
    out = Path(arguments.out)
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise LaunchError(f"--out {out}: expected the name of a file in a folder that exists, got none; correct it")
    check_writable(out.absolute().parent)
    with step("measuring this machine, about a minute"):
        device = measure_device()
    write_atomically(out, device_text(device))
    for line in lines(device):
        say(line)
    say(f"{out}: use it with stillhouse plan CONFIG --gpu {out}")
    return 0


def measure_device() -> Device:
    """This process's device with its rates."""
    where = process_group.device()
    ranks = measure_ranks()
    process_group.start(PATIENCE_SECONDS)  # as a run does: it chooses the processor's products
    measured = measure_rates(where)
    libraries = ranks.pop("libraries_gb")
    copied = rates.copy_rate(where)
    gemm = {name: max(by_width.values()) for name, by_width in measured.gemm.items()}
    base = DEVICES["cpu" if where.type == "cpu" else "h100"]
    total = psutil.virtual_memory().total if where.type == "cpu" else torch.cuda.get_device_properties(where).total_memory
    limit = group_limit() if where.type == "cpu" else None
    return base.model_copy(
        update={
            "name": f"{device_name()}, {measured.threads} thread{'s' if measured.threads > 1 else ''} a rank",
            "tflops": {name: round(rate, 4) for name, rate in gemm.items()},
            "memory_gb": round(min(total, limit or total) / 1e9, 2),
            "bandwidth_gb": round(copied, 2),
            "libraries_gb": round(libraries, 3) if where.type == "cpu" else base.libraries_gb,
            "utilisation": 1.0,
            "watts": 0.0,
            "source": f"measured by stillhouse plan --calibrate, torch {torch.__version__}",
            "measured": measured.model_copy(update=ranks | {name: tuple(ranks[name]) for name in ("all_reduce", "all_reduce_bf16")}),
        }
    )


def measure_rates(where: torch.device) -> Measured:
    """The rates of one process."""
    started, cpu = time.perf_counter(), time.process_time()
    gemm = {name: {width: rates.gemm_rate(name, width, where) for width in WIDTHS} for name in PRECISIONS}
    attention = {
        f"{name} {kernel}": {window: rates.attention_costs(name, kernel, window, where) for window in windows}
        for name in PRECISIONS
        for kernel, windows in (("sdpa", WINDOWS), ("eager", WINDOWS), ("documents", DOCUMENTS))
    }
    elementwise = {name: rates.elementwise_rates(name, where) for name in PRECISIONS}
    head = {name: rates.head_costs(name, where) for name in PRECISIONS}
    threads = torch.get_num_threads() if where.type == "cpu" else 1
    step_cost = rates.optimizer_cost(where)
    wall = (time.perf_counter() - started) / max(1e-9, time.process_time() - cpu)
    return Measured(
        threads=threads,
        gemm=gemm,
        attention=attention,
        elementwise=elementwise,
        head=head,
        optimizer=step_cost,
        engine=engine_costs(where),
        wall_per_cpu=round(wall * threads, 3),
    )


def measure_ranks() -> dict[str, Any]:
    """Figures of two ranks, by their names in Measured, and libraries_gb: GB of a rank's libraries."""
    with tempfile.TemporaryDirectory() as folder:
        answer, log = Path(folder) / "answer.json", Path(folder) / "log.txt"
        processes = Processes(["-m", "launcher.benchmarks.calibrate", str(answer)], 2, log, child_environment())
        end = time.monotonic() + PATIENCE_SECONDS
        try:
            while (code := processes.poll()) is None and time.monotonic() < end:
                time.sleep(0.05)
        finally:
            processes.stop()
        if code != 0:
            last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
            raise LaunchError(f"--calibrate: expected two processes to exchange numbers, got {last or code}; see stillhouse doctor")
        values: dict[str, Any] = json.loads(answer.read_text(encoding="utf-8"))
    return values


def lines(device: Device) -> Iterator[str]:
    """The figures in words."""
    measured = device.measured
    assert measured is not None
    yield f"{device.name}, {device.memory_gb:.1f} GB"
    for name, by_width in measured.gemm.items():
        listed = ", ".join(f"{width}: {1000 * rate:,.0f}" for width, rate in by_width.items())
        yield f"matrix products in {name}, GFLOP/s by width: {listed}"
    yield f"memory: {device.bandwidth_gb:.1f} GB/s; libraries of a rank: {device.libraries_gb:.2f} GB"
    if measured.all_reduce is not None:
        seconds, rate = measured.all_reduce
        yield f"all-reduce of two ranks: {1000 * seconds:.2f} ms and {rate:.2f} GB/s"
    for name, cost in measured.engine.items():
        (_, table), *_ = ((weights, values[1]) for weights, values in cost.weight_ns.items())
        yield f"a micro-batch in {name}: {cost.layer_us:,.0f} us a layer, and {table:.1f} ns a weight of the embeddings"
    if measured.wall_per_cpu > 1.2:
        yield f"wall time was {measured.wall_per_cpu:.2f} times CPU time: other processes had the cores, so a run takes longer"


def device_name() -> str:
    """The name of the GPU or processor."""
    if process_group.device().type == "cuda":
        return str(torch.cuda.get_device_properties(process_group.device()).name)
    return processor().partition(", ")[0]


def main(path: Path) -> int:
    """On each of two ranks: measure. Rank 0 writes the answer."""
    process_group.start(PATIENCE_SECONDS)
    try:
        with torch.device("meta"):  # a plan builds both kinds without weights, and their code stays in memory
            for config in (BertConfig(), DistilBertConfig()):
                untrained(config)
        libraries = psutil.Process().memory_info().rss / 1e9
        values = {"libraries_gb": libraries} | two_ranks(process_group.device())
        if process_group.rank() == 0:
            write_atomically(path, json.dumps(values))
        process_group.barrier()
    finally:
        process_group.stop()
    return 0


if __name__ == "__main__":
    code = main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(code)
