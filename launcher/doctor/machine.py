"""The machine under a run, looked at for `stillhouse doctor`: software, compiler, processor, memory, GPUs, stale compile locks."""

import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import psutil
import torch

from kd.distributed import process_group
from launcher.doctor.findings import Finding, bad, good, warning
from launcher.process import extensions, preflight
from launcher.reporting.console import size

CARED_FOR = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "arm_bf16")
SMALL_SHARED_MEMORY = 1 << 28
LOCK_SECONDS = 10.0  # a younger lock may be that of a build that has just begun
PROGRAM = "#include <Python.h>\n#include <vector>\nint main() { return std::vector<int>(3).size() == 3 ? 0 : 1; }\n"


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


def compiler() -> Iterator[Finding]:
    """Whether a C++ program with Python's headers compiles here: DeepSpeed builds an op with it on CPUs."""
    name = os.environ.get("CXX", "c++")
    if shutil.which(name) is None:
        yield bad("compiler", f"no {name} on the PATH", "install g++, or set CXX")
        return
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "program.cpp"
        source.write_text(PROGRAM, encoding="utf-8")
        command = [name, "-std=c++20", f"-I{sysconfig.get_paths()['include']}", "-c", str(source), "-o", str(source.with_suffix(".o"))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        first = next((line.strip() for line in done.stderr.splitlines() if "error" in line), f"exit code {done.returncode}")
        yield bad("compiler", first[:200], "install g++ 11 or later and python3-dev")
    else:
        version = subprocess.run([name, "--version"], capture_output=True, text=True, timeout=30, check=False).stdout.splitlines()
        yield good("compiler", f"compiles with Python's headers: {version[0] if version else name}")
    beside = Path(sys.executable).parent / "ninja"
    if shutil.which("ninja") or beside.exists():
        yield good("ninja", shutil.which("ninja") or str(beside))
    else:
        yield bad("ninja", "none", f"{sys.executable} -m pip install ninja")


def processor() -> Iterator[Finding]:
    """Cores that this process may use, and what multiplies bf16."""
    cores, threads = len(os.sched_getaffinity(0)), torch.get_num_threads()
    there = torch.cpu.get_capabilities()
    features = ", ".join(name for name in CARED_FOR if there.get(name)) or "none of note"
    precision = "bf16" if process_group.native_bf16() else "fp32"
    yield good("processor", f"{cores} cores of {os.cpu_count()}; {features}; train.precision auto means {precision}")
    local = int(os.environ.get("SLURM_NTASKS_PER_NODE", "1").split("(")[0] or 1)
    if threads * local > cores:
        yield warning("threads", f"{threads} a rank x {local} ranks on {cores} cores", f"set OMP_NUM_THREADS={max(1, cores // local)}")
    else:
        yield good("threads", f"{threads} a rank")


def memory() -> Iterator[Finding]:
    """Memory that is free, within the limit of a container or job, and shared memory."""
    facts = psutil.virtual_memory()
    limit = _cgroup_limit()
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


def compiled_op() -> Iterator[Finding]:
    """Whether DeepSpeed's op is there."""
    folder = extensions.extensions_folder()
    if extensions.is_ready(folder):
        yield good("DeepSpeed's op", f"compiled, in {folder}")
    else:
        yield good("DeepSpeed's op", f"not yet compiled; the first run does it in half a minute, in {folder}")


def locks(clear: bool) -> Iterator[Finding]:
    """Locks of torch's builds that no process holds open: every later start would wait for them for ever. clear: remove them."""
    roots = {extensions.extensions_folder(), extensions.private_folder(), Path.home() / ".cache" / "torch_extensions"}
    found = sorted({lock.resolve() for root in roots if root.is_dir() for lock in root.glob("**/lock")})
    stale = [lock for lock in found if time.time() - lock.stat().st_mtime > LOCK_SECONDS and extensions.holder(lock) is None]
    if not stale:
        held = f"; {len(found)} held by builds at work" if found else ""
        yield good("compile locks", f"none that a killed build left{held}")
        return
    for lock in stale:
        if clear:
            lock.unlink(missing_ok=True)
            yield good("compile locks", f"removed {lock}")
        else:
            yield bad("compile locks", f"{lock}: left by a killed build", "stillhouse doctor --clear-locks, if no other host builds there")


def _cgroup_limit() -> int | None:
    """Bytes that a container or a Slurm step may use, if it is limited."""
    for path in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        try:
            text = Path(path).read_text(encoding="ascii").strip()
        except OSError:
            continue
        if text.isdecimal() and int(text) < 1 << 60:
            return int(text)
    return None
