"""The machine under a run, looked at for `stillhouse doctor`: software, processor, memory, GPUs."""

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil
import torch

from kd.distributed import precision
from launcher.doctor.findings import Finding, bad, good, warning
from launcher.planning.devices.this_device import group_limit
from launcher.process import preflight
from launcher.text import counted, size

CARED_FOR = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "arm_bf16")
SMALL_SHARED_MEMORY = 1 << 28


def software() -> Iterator[Finding]:
    """Python and every package against the versions known to work."""
    here = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info[:2] >= preflight.PYTHON:
        yield good("python", here)
    else:
        yield bad("python", here, f"use {'.'.join(map(str, preflight.PYTHON))} or later")
    wrong = []
    for name, wanted in preflight.PACKAGES.items():
        try:
            version: str | None = metadata.version(name)
        except metadata.PackageNotFoundError:
            version = None
        if not preflight.fits(version, wanted):
            wrong.append(f"{name} {version or 'missing'} ({wanted})")
    if wrong:
        yield bad("packages", ", ".join(wrong), f"{sys.executable} -m pip install the versions in brackets, or make .venv")
    else:
        yield good("packages", f"all {len(preflight.PACKAGES)} as known to work; torch {torch.__version__}")


def processor() -> Iterator[Finding]:
    """Cores that this process may use, and what multiplies bf16."""
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    there = torch.cpu.get_capabilities()
    features = ", ".join(name for name in CARED_FOR if there.get(name)) or "none of note"
    auto = precision.on_this_machine()
    yield good(
        "processor",
        f"{counted(cores, 'core')} of {os.cpu_count()}; {features}; train.precision auto means {auto.precision} ({auto.reason})",
    )
    local = int(os.environ.get("SLURM_NTASKS_PER_NODE", "1").split("(")[0] or 1)
    if threads * local > cores:
        yield warning(
            "threads",
            f"{threads} a rank x {counted(local, 'rank')} on {counted(cores, 'core')}",
            f"set OMP_NUM_THREADS={max(1, cores // local)}",
        )
    else:
        yield good("threads", f"{threads} a rank")


def memory() -> Iterator[Finding]:
    """Memory that is free, within the limit of a container or job, and shared memory."""
    facts = psutil.virtual_memory()
    limit = group_limit()
    total = min(facts.total, limit or facts.total)
    text = f"{size(facts.available)} free of {size(facts.total)}" + (f", limited to {size(limit)}" if limit else "")
    enough = min(facts.available, total) >= 4 << 30
    yield good("memory", text) if enough else warning("memory", text, "a small run needs some 4 GB")
    place = Path("/dev/shm")
    if not place.is_dir():
        yield bad("shared memory", "no /dev/shm", "mount a tmpfs there: ranks of one host talk through it")
        return
    free = shutil.disk_usage(place).free
    with tempfile.NamedTemporaryFile(dir=place, prefix="stillhouse-") as file:
        file.write(bytes(1 << 20))
        file.flush()
    if free < SMALL_SHARED_MEMORY:
        yield warning("shared memory", f"{size(free)} free in {place}", "give it more (docker run --shm-size=8g)")
    else:
        yield good("shared memory", f"{size(free)} free in {place}")


def accelerators() -> Iterator[Finding]:
    """GPUs, their driver and NCCL; none is no fault."""
    devices = Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()
    if not torch.cuda.is_available():
        if devices:
            yield bad("GPUs", f"the driver is there, but torch {torch.__version__} sees none", "install torch for this driver")
        else:
            yield good("GPUs", "none; CPUs compute, gloo connects")
        return
    names = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    held = ", ".join(f"{device.name} {size(device.total_memory)}" for device in names)
    driver = shutil.which("nvidia-smi")
    version = ""
    if driver:
        command = [driver, "--query-gpu=driver_version", "--format=csv,noheader"]
        version = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False).stdout.split("\n")[0]
    nccl = ".".join(map(str, torch.cuda.nccl.version())) if torch.distributed.is_nccl_available() else "none"
    yield good("GPUs", f"{held}; driver {version or 'unknown'}, CUDA {torch.version.cuda}, NCCL {nccl}")
