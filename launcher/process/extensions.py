"""What DeepSpeed compiles, compiled once, before ranks start; and a lock that a killed process left, found instead of waited for.

On CPUs DeepSpeed's start compiles a shared-memory op with torch's cpp_extension. torch guards the build with a file `lock` that its holder
keeps open. A holder that is killed leaves the file, and every later start waits for it for ever, without a word. So:

1. `extensions_folder`: the user's TORCH_EXTENSIONS_DIR, else a private folder for these versions, this environment, processor and host.
2. `prepare_extensions`: instant where the op is ready; else build it in a child process, one process at a time.
3. A lock that no process holds open is stale: removed in the private folder, reported in the user's own.

Needs neither torch nor DeepSpeed in this process. The folder is the host's own, also in a shared home, because who holds a lock open can
be seen on that host alone. It is the environment's own because torch's headers are part of the command line, and with another one torch
compiles again: in the ranks, each time that two environments take turns.
"""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import psutil
from filelock import FileLock, Timeout

from launcher.errors import LaunchError

OP = "deepspeed_shm_comm"
READY = f".ready-{OP}"  # names the loaded library and the environment that built it
VARIABLE = "TORCH_EXTENSIONS_DIR"
WAIT_SECONDS = 600.0  # for another process that compiles
ELSEWHERE_SECONDS = 90.0  # for a lock in the user's folder that no process of this host holds: that folder may be several hosts'
BUILD = """
from deepspeed.accelerator import get_accelerator
accelerator = get_accelerator()
if accelerator.device_name() == "cpu":
    builder = accelerator.create_op_builder("ShareMemCommBuilder")
    print("library:", builder.load(verbose=False).__file__ if builder is not None and builder.is_compatible() else "")
"""


def extensions_folder() -> Path:
    """Where torch builds extensions for this run: the user's choice, else a private folder."""
    return Path(os.environ.get(VARIABLE) or private_folder())


def private_folder() -> Path:
    """Where this user's builds go for these versions, this environment, this processor and this host."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    versions = f"torch{_version('torch')}-py{sys.version_info[0]}{sys.version_info[1]}-deepspeed{_version('deepspeed')}"
    return cache / "stillhouse" / "torch_extensions" / f"{versions}-{_processor()}-{_digest(sys.prefix)}-{platform.node() or 'host'}"


def prepare_extensions(say: Callable[[str], None] = print) -> None:
    """Have DeepSpeed's op compiled, and tell torch and the ranks to come where (TORCH_EXTENSIONS_DIR, PATH).

    Instant where it is ready or where a GPU computes. Raises LaunchError for a missing compiler, a failed build and, in the user's own
    TORCH_EXTENSIONS_DIR, a stale lock.
    """
    if _on_gpu():
        return
    folder = extensions_folder()
    private = folder == private_folder()  # also where a process before this one has already said so to the ranks
    os.environ[VARIABLE] = str(folder)
    _find_ninja()
    lock = folder / OP / "lock"
    if is_ready(folder) and not lock.exists():
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        guard = FileLock(folder / ".building", timeout=WAIT_SECONDS)
        with guard:
            _settle_lock(folder, lock, private, say)
            if not is_ready(folder):
                _build(folder, say)
    except Timeout:
        raise LaunchError(
            f"{folder}: expected another process to finish compiling within {WAIT_SECONDS:.0f} s, got no end; stop it, or set {VARIABLE}"
        ) from None
    except OSError as error:
        raise LaunchError(f"{folder}: expected to compile DeepSpeed's op there, got {error}; set {VARIABLE} to another folder") from None


def _settle_lock(folder: Path, lock: Path, private: bool, say: Callable[[str], None]) -> None:
    """Wait for a lock that somebody holds; deal with one that nobody does."""
    began = time.monotonic()
    told = False
    while lock.exists() and ((at_work := holder(lock)) is not None or (not private and time.monotonic() < began + ELSEWHERE_SECONDS)):
        if not told and time.monotonic() > began + 2.0:  # another run that only loads what is ready is faster
            who = f"process {at_work}, which is" if at_work is not None else f"whoever holds {lock}, perhaps on another host and"
            say(f"waiting for {who} compiling DeepSpeed's communication op")
            told = True
        if time.monotonic() > began + WAIT_SECONDS:
            raise LaunchError(f"{lock}: expected process {at_work} to finish compiling, got no end; stop it and start again")
        time.sleep(0.2)
    if not lock.exists():
        return
    if not private:
        raise LaunchError(
            f"{lock}: expected no lock, got one that a killed process left (torch would wait for it for ever); "
            f"remove it if nothing else compiles there: rm {lock}"
        )
    say(f"{lock}: removed a lock that a killed process left")
    if is_ready(folder):
        lock.unlink(missing_ok=True)
        return
    # The killed process's compiler may still be writing: it keeps the folder it is in, and the new build gets another.
    aside = folder / f".{OP}-{os.getpid()}"
    lock.parent.rename(aside)
    shutil.rmtree(aside, ignore_errors=True)


def _build(folder: Path, say: Callable[[str], None]) -> None:
    """Compile in a child, so that this process stays small and a crash in there is a line here."""
    _check_compiler()
    say("compiling DeepSpeed's communication op, once, about half a minute")
    done = subprocess.run([sys.executable, "-c", BUILD], capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(folder / OP, ignore_errors=True)
        raise LaunchError(f"{folder}: expected to compile DeepSpeed's op, got {_why(done)}; see that a C++ compiler works here")
    library = next((line.removeprefix("library: ") for line in done.stdout.splitlines() if line.startswith("library: ")), None)
    if library is not None:  # else an accelerator that compiles nothing, and may be absent next time
        (folder / READY).write_text(f"{library.strip()}\n{sys.prefix}\n", encoding="utf-8")


def _check_compiler() -> None:
    compiler = os.environ.get("CXX", "c++")
    if shutil.which(compiler) is None:
        raise LaunchError(f"{compiler}: expected a C++ compiler for DeepSpeed's communication op, got none; install g++, or set CXX")
    header = Path(sysconfig.get_paths()["include"]) / "Python.h"
    if not header.exists():
        raise LaunchError(f"{header}: expected Python's headers for DeepSpeed's communication op, got none; install python3-dev")
    if shutil.which("ninja") is None:
        raise LaunchError(f"ninja: expected it to build DeepSpeed's communication op, got none; {sys.executable} -m pip install ninja")


def _find_ninja() -> None:
    """torch looks for ninja on the PATH; in an environment that was not activated it lies beside python."""
    beside = Path(sys.executable).parent
    if shutil.which("ninja") is None and (beside / "ninja").exists():
        os.environ["PATH"] = os.pathsep.join([str(beside), os.environ.get("PATH", os.defpath)])


def is_ready(folder: Path) -> bool:
    """Whether the op was built here, by this environment, and its library is still there (no library: a platform without the op)."""
    try:
        library, *environment = (folder / READY).read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return False
    return environment == [sys.prefix] and (not library or Path(library).exists())


def holder(lock: Path) -> int | None:
    """The process of this host that has the lock open, if there is one that this user can see."""
    wanted = os.path.realpath(lock)
    for process in psutil.process_iter():
        try:
            if any(file.path == wanted for file in process.open_files()):
                return process.pid
        except psutil.Error:
            continue
    return None


def _on_gpu() -> bool:
    """Whether DeepSpeed will surely compute on something else than the CPU. In doubt False: the child looks for itself."""
    chosen = os.environ.get("DS_ACCELERATOR")
    if chosen:
        return chosen != "cpu"
    if _version("torch").endswith("+cpu") or os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    return Path("/dev/nvidiactl").exists() or Path("/dev/kfd").exists()


def _processor() -> str:
    """What `-march=native` sees, as 8 digits: an op compiled for one processor may crash on another of the same cluster."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        seen = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        seen = f"{platform.machine()} {platform.processor()}"
    return f"{platform.machine()}-{_digest(seen)}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "none"


def _why(done: subprocess.CompletedProcess[str]) -> str:
    """The first error of a failed build, else its last line."""
    if done.returncode < 0:
        return f"signal {-done.returncode}"
    lines = [line.strip() for line in (done.stdout + "\n" + done.stderr).splitlines() if line.strip()]
    return next((line for line in lines if "error:" in line), lines[-1] if lines else f"exit code {done.returncode}")[:300]
