"""Checks before anything heavy is imported: packages, folders, ports. Needs nothing but Python itself.

Everything raises LaunchError with the one line to print.
"""

import codecs
import errno
import locale
import os
import re
import socket
import sys
import tempfile
from importlib import metadata
from pathlib import Path

from launcher.errors import LaunchError, RankEnvironmentError

PYTHON = (3, 11)
PACKAGES = {
    "torch": ">=2.13,<2.14",
    "deepspeed": ">=0.19.8,<0.20",
    "transformers": ">=5.23,<6",
    "datasets": ">=5.2,<6",
    "braceexpand": ">=0.1.7,<1",
    "webdataset": ">=1.0.2,<2",
    "wandb": ">=0.31,<0.32",
    "pydantic": ">=2.14,<3",
    "rich": ">=15,<16",
    "pyyaml": ">=6",
    "safetensors": ">=0.8,<1",
    "huggingface-hub": ">=2.4,<3",
    "fsspec": ">=2026.9",
    "numpy": ">=2.4,<3",
    "pyarrow": ">=26",
    "psutil": ">=7",
    "filelock": ">=4",
    "matplotlib": ">=3.11,<4",
    "jinja2": ">=3.1,<4",
    "markupsafe": ">=3",
}
"""Versions that are known to work: pyproject.toml's, repeated here for a clone that was never installed (a test compares them)."""


def check_packages() -> None:
    """LaunchError, one line a package, unless Python and every package are of a version known to work, and text is more than ASCII."""
    if sys.version_info[:2] < PYTHON:
        raise LaunchError(f"python: expected {'.'.join(map(str, PYTHON))} or later, got {sys.version.split()[0]}; use a newer one")
    encoding = locale.getpreferredencoding(do_setlocale=False)  # with LC_ALL=C, Python takes UTF-8 by itself, unless it was told not to
    if codecs.lookup(encoding).name == "ascii":  # torch reads files of its own, with more letters than that
        raise LaunchError("locale: expected text files in UTF-8, got ascii; unset PYTHONUTF8 and PYTHONCOERCECLOCALE, or set PYTHONUTF8=1")
    wrong = {name: version for name, wanted in PACKAGES.items() if not fits(version := _version(name), wanted)}
    if wrong:
        lines = [f"{name}: expected {PACKAGES[name]}, got {version or 'none'}" for name, version in wrong.items()]
        asked = " ".join(f"'{name}{PACKAGES[name]}'" for name in wrong)
        raise LaunchError("\n".join([*lines[:-1], f"{lines[-1]}; {sys.executable} -m pip install {asked}"]))


def fits(version: str | None, wanted: str) -> bool:
    """True if a version (None: not installed) is in a range like `>=2.13,<2.14`. Local parts (+cpu) and pre-release tags are ignored."""
    if version is None:
        return False
    for bound in wanted.split(","):
        low, high = _numbers(version), _numbers(bound.lstrip("<>="))
        if (bound.startswith(">=") and low < high) or (bound.startswith("<") and low >= high):
            return False
    return True


def check_writable(folder: Path) -> None:
    """LaunchError unless a file can be made in the folder, or in the nearest parent there is. Leaves nothing behind."""
    existing = existing_parent(folder)
    try:
        with tempfile.NamedTemporaryFile(dir=existing, prefix=".writable-"):
            pass
    except OSError as error:
        raise LaunchError(f"{folder}: expected a folder that can be written, got {_reason(error)} in {existing}; choose another") from None


def existing_parent(folder: Path) -> Path:
    """The folder itself, or the nearest parent that exists."""
    return next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())


def check_meeting(rank: int, world: int) -> None:
    """LaunchError unless the environment says where the ranks meet, and rank 0 can listen there. MASTER_PORT is a number."""
    port = int(os.environ.get("MASTER_PORT", "0"))
    if world > 1 and not 0 < port < 65536:
        raise RankEnvironmentError(f"MASTER_PORT: expected a port from 1 to 65535, got {port or 'none'}; set it to the same on every rank")
    if world > 1 and not os.environ.get("MASTER_ADDR"):
        raise RankEnvironmentError("MASTER_ADDR: expected the address of rank 0's host, got none; set it to the same on every rank")
    meeting = world > 1 or port != 0  # 0: what kd.distributed.process_group leaves behind in a world of one
    if rank == 0 and meeting and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # torchrun itself listens there
        check_port(os.environ.get("MASTER_ADDR", "127.0.0.1"), port)


def check_port(address: str, port: int) -> None:
    """LaunchError unless the first rank can listen there. An address of another machine is that machine's to check."""
    if not 0 < port < 65536:
        raise LaunchError(f"MASTER_PORT: expected a port from 1 to 65535, got {port}; choose another")
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise LaunchError(f"MASTER_ADDR: expected a host that can be found, got {address} ({_reason(error)}); correct it") from None
    with socket.socket(family, kind, protocol) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a run that has just ended is not in the way
        try:
            probe.bind(place)  # and no listen: another rank, already knocking, would be let in and then shut out
        except OSError as error:
            if error.errno == errno.EADDRNOTAVAIL:
                return
            advice = "choose another: deepspeed --master_port N …, or MASTER_PORT=N with torchrun and srun"
            got = f"one taken by {_listener(port)}" if error.errno == errno.EADDRINUSE else _reason(error)
            raise LaunchError(f"{address}:{port}: expected a free port for the ranks to meet at, got {got}; {advice}") from None


def _numbers(version: str) -> tuple[int, ...]:
    """`2.13.0+cpu` -> (2, 13): the leading numbers, without zeros at the end."""
    found = re.match(r"\d+(\.\d+)*", version)
    numbers = [int(part) for part in found[0].split(".")] if found else []
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _listener(port: int) -> str:
    """The process that listens on a port, as far as this user may see it."""
    try:
        import psutil  # noqa: PLC0415 (this file must load without any package)

        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except Exception:  # psutil raises what the platform does; the name is a courtesy
        pass
    return "another process"


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()
