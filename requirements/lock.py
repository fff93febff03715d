"""Re-pins what the installed environment holds: `.venv/bin/python requirements/lock.py`.

1. Walk the dependencies of pyproject.toml through the metadata of the installed packages, for every Python and machine below.
2. Ask the index, through pip, for the sha256 of the wheel that each Python and machine would take.
3. Write lock.txt (wheels), deepspeed.txt (an sdist, built against the torch that is there) and triton.txt (wheels for tests on CPUs).

torch and what torch alone needs from the GPU's maker are left out: pip chooses them by the machine, so no one hash fits.
To move a version: `pip install -U NAME` in .venv, run this, run the tests.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import defaultdict
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

HERE = Path(__file__).resolve().parent
PYTHONS = ("3.11", "3.12", "3.13")
MACHINES = ("x86_64", "aarch64")
BUILD = ("setuptools", "py-cpuinfo", "packaging")  # what building deepspeed and this package needs
BY_MACHINE = ("torch",)
SDISTS = ("deepspeed",)
TRITON = "triton==3.7.1"  # as the metadata of the pinned torch requires on GPUs; torch for CPUs brings none


def requirements_of_project() -> list[str]:
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [*BUILD, *project["dependencies"], *(line for extra in project["optional-dependencies"].values() for line in extra)]


def closure(python: str, machine: str) -> set[str]:
    """Names, canonical, of everything the project needs on Linux with that Python and machine."""
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.0",
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        "sys_platform": "linux",
        "platform_system": "Linux",
        "os_name": "posix",
        "platform_machine": machine,
    }
    seen: set[tuple[str, str]] = set()
    queue = [Requirement(line) for line in requirements_of_project()]
    while queue:
        wanted = queue.pop()
        name = canonicalize_name(wanted.name)
        for extra in ("", *wanted.extras):
            if (name, extra) in seen:
                continue
            seen.add((name, extra))
            for line in distribution(name).requires or []:
                needed = Requirement(line)
                if needed.marker is None or needed.marker.evaluate({**environment, "extra": extra}):
                    queue.append(needed)
    return {name for name, _ in seen}


def hashes_of(pins: list[str], python: str, machine: str) -> dict[str, str]:
    """Name -> sha256 of the wheel that pip would install there."""
    platforms = [f"--platform={tag}_{machine}" for tag in (*(f"manylinux_2_{n}" for n in range(28, 4, -1)), "manylinux2014")]
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        target = ["--target", scratch, "--only-binary", ":all:", "--python-version", python, *platforms]
        ask = ["--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", str(report)]
        subprocess.run([sys.executable, "-m", "pip", "install", *ask, *target, *pins], check=True)
        return read_hashes(report)


def hash_of_sdist(pin: str) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "report.json"
        ask = ["--dry-run", "--ignore-installed", "--no-deps", "--no-build-isolation", "--quiet", "--report", str(report)]
        subprocess.run([sys.executable, "-m", "pip", "install", *ask, pin], check=True)
        (digest,) = read_hashes(report).values()
        return digest


def read_hashes(report: Path) -> dict[str, str]:
    installs = json.loads(report.read_text(encoding="utf-8"))["install"]
    return {canonicalize_name(i["metadata"]["name"]): i["download_info"]["archive_info"]["hashes"]["sha256"] for i in installs}


def write(path: Path, about: str, hashes: dict[str, set[str]]) -> None:
    lines = [f"# {line}" for line in about.splitlines()]
    for pin in sorted(hashes):
        lines.append(" \\\n".join([pin, *(f"    --hash=sha256:{digest}" for digest in sorted(hashes[pin]))]))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    hashes: dict[str, set[str]] = defaultdict(set)
    everywhere: set[str] | None = None
    for python in PYTHONS:
        for machine in MACHINES:
            try:
                names = closure(python, machine)
            except PackageNotFoundError as error:
                sys.exit(f"lock.py: Python {python} on {machine} needs {error.name}, which is not installed here: pip install it")
            names = {name for name in names if not re.match(r"(nvidia-|cuda-|triton)", name)}
            everywhere = names if everywhere is None else everywhere & names
            pins = {name: f"{name}=={distribution(name).version}" for name in names - set(BY_MACHINE) - set(SDISTS)}
            for name, digest in hashes_of(sorted(pins.values()), python, machine).items():
                hashes[pins[name]].add(digest)
    assert everywhere is not None
    partial = sorted(pin.split("==")[0] for pin in hashes if pin.split("==")[0] not in everywhere)
    if partial:
        sys.exit(f"lock.py: {', '.join(partial)} is needed on some Pythons only: give it a marker here")
    about = (
        "Written by requirements/lock.py: do not edit.\n"
        f"sha256 of the wheels that pip takes on Linux ({', '.join(MACHINES)}) with CPython {', '.join(PYTHONS)}.\n"
    )
    write(HERE / "lock.txt", about + "Install: pip install --no-deps --require-hashes -r requirements/lock.txt", hashes)
    sdists = {pin: {hash_of_sdist(pin)} for pin in (f"{name}=={distribution(name).version}" for name in SDISTS)}
    about = (
        "Written by requirements/lock.py: do not edit.\n"
        "sdists, built against the torch that is installed: after lock.txt and torch.\n"
        "Install: pip install --no-deps --no-build-isolation --require-hashes -r requirements/deepspeed.txt"
    )
    write(HERE / "deepspeed.txt", about, sdists)
    about = (
        "Written by requirements/lock.py: do not edit.\n"
        "For the tests of kernels for GPUs, on machines without one: torch's builds for GPUs bring it.\n"
        "Install: make .venv/.triton"
    )
    kernels = {digest for python in PYTHONS for machine in MACHINES for digest in hashes_of([TRITON], python, machine).values()}
    write(HERE / "triton.txt", about, {TRITON: kernels})


if __name__ == "__main__":
    main()
