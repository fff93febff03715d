"""The lock of a run folder: one run at a time, also over several hosts, renamed hosts and wrong clocks.

`FOLDER/lock` names the owner, who touches it every BEAT_SECONDS. On the owner's machine its process is looked up by number and start time.
The start time is a tick of the kernel's clock, which a change of the time of day does not move. For other machines the owner is
alive as long as it touches the lock. No two clocks are compared. A dead owner's lock is taken over. An owner that was only suspended
notices that when it resumes.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from launcher.errors import LaunchError

BEAT_SECONDS = 2.0
SILENT_BEATS = 5  # untouched for so long: the owner is gone
OPENING_SECONDS = 60.0


class Ownership:
    """A folder's lock, held by this process."""

    def __init__(self, lock: Path, identity: dict[str, Any]) -> None:
        self.taken_over: str | None = None
        """The new owner, as text, if this process has lost the folder."""
        self._lock = lock
        self._identity = identity
        self._ended = threading.Event()
        threading.Thread(target=self._keep, name="lock", daemon=True).start()

    def release(self) -> None:
        """Give the folder free, if it is still ours."""
        self._ended.set()
        with suppress(OSError):
            if _owner(self._lock) == self._identity:
                self._lock.unlink(missing_ok=True)

    def _keep(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with suppress(OSError):  # a file system that is away for a while: the next beat tries again
                owner = _owner(self._lock)
                if owner is not None and owner != self._identity:
                    self.taken_over = _words(owner)
                    return
                os.utime(self._lock)


@contextmanager
def owned(folder: Path) -> Iterator[Ownership]:
    """Hold the folder. Raises LaunchError, which names the owner, while another run does."""
    lock = folder / "lock"
    identity = _myself()
    try:
        with FileLock(folder / ".opening", timeout=OPENING_SECONDS):  # of two that find a dead owner, one at a time looks and takes over
            owner = _owner(lock)
            if owner is not None and _lives(owner, lock):
                raise LaunchError(
                    f"run.folder: expected {folder} to be free, got a run that is still going ({_words(owner)}); "
                    "wait for it, or use another folder"
                )
            temporary = lock.with_name(".lock.writing")
            temporary.write_text(json.dumps(identity) + "\n", encoding="utf-8")
            temporary.replace(lock)
    except Timeout:
        raise LaunchError(f"run.folder: expected to open {folder}, got another process that is opening it; try again") from None
    except OSError as error:
        raise LaunchError(f"run.folder: expected to write {lock}, got {error.strerror or error}; choose another") from None
    ownership = Ownership(lock, identity)
    try:
        yield ownership
    finally:
        ownership.release()


def owner_of(folder: Path) -> str | None:
    """The run that owns a folder now, as text; None if it is free."""
    owner = _owner(folder / "lock")
    return _words(owner) if owner is not None and _lives(owner, folder / "lock") else None


def _myself() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": _began(os.getpid()),
        "machine": _machine(),
        "job": os.environ.get("SLURM_JOB_ID"),
    }


def _words(owner: dict[str, Any]) -> str:
    job = f", job {owner['job']}" if owner.get("job") else ""
    return f"host {owner.get('host')}, pid {owner.get('pid')}{job}"


def _owner(lock: Path) -> dict[str, Any] | None:
    """The owner that the lock file names, if any."""
    try:
        owner = json.loads(lock.read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return None
    return owner if isinstance(owner, dict) else None


def _lives(owner: dict[str, Any], lock: Path) -> bool:
    """True if the owner is still running. Takes BEAT_SECONDS x SILENT_BEATS if its processes cannot be seen from here."""
    if owner.get("machine") == _machine():
        try:
            running = psutil.Process(int(owner["pid"])).status() != psutil.STATUS_ZOMBIE
            return running and owner["started"] == _began(int(owner["pid"]))
        except psutil.AccessDenied:
            return True
        except (psutil.Error, KeyError, TypeError, ValueError):
            return False
    before = _touched(lock)
    end = time.monotonic() + BEAT_SECONDS * SILENT_BEATS
    while time.monotonic() < end:
        time.sleep(BEAT_SECONDS / 4)
        if _touched(lock) not in (before, None):
            return True
    return False


def _touched(lock: Path) -> int | None:
    """When the lock was last touched, by its file system's clock; opened first, because a network's file system may answer from memory."""
    try:
        with lock.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _machine() -> str:
    """This start of this machine and, in a container, of this set of processes: where a process number means something."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + os.readlink("/proc/self/ns/pid").removeprefix("pid:")
    except OSError:
        return socket.gethostname()


def _began(pid: int) -> float:
    """When a process began: ticks of the kernel's own clock; seconds of the time of day where there is no /proc."""
    try:
        return float(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return psutil.Process(pid).create_time()
