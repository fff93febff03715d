"""Findings of `stillhouse doctor` about other machines: ranks, host names and ports, Slurm, W&B, the model hub."""

import netrc
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit

from launcher.doctor import rank_bandwidth
from launcher.doctor.findings import Finding, bad, good, warning
from launcher.errors import LaunchError
from launcher.process import preflight, rank_environment
from launcher.reporting.wandb import default_server

ANSWER_SECONDS = 5.0
SLOW_BYTES_PER_SECOND = 50e6
HUB = "https://huggingface.co"


def ranks() -> Iterator[Finding]:
    """The speed between ranks: over all hosts under srun or torchrun, otherwise between two ranks on this host."""
    measured = rank_bandwidth.measure()
    if not measured:
        return  # another rank reports
    where = "the job's hosts" if rank_environment.rank_variables() else "this host"
    rate, milliseconds = measured["bytes_per_second"], 1e3 * measured["seconds_small"]
    text = f"{measured['ranks']} on {where} by {measured['backend']}: {rate / 1e6:,.0f} MB/s, {milliseconds:.2f} ms for a small sum"
    if rate < SLOW_BYTES_PER_SECOND:
        yield warning("ranks", text, "see which network they use: GLOO_SOCKET_IFNAME, NCCL_SOCKET_IFNAME")
    else:
        yield good("ranks", text)


def names() -> Iterator[Finding]:
    """The name of this host resolves to this host, and a port can be opened."""
    name = socket.gethostname()
    try:
        addresses = sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, None)})
    except OSError as error:
        yield warning(
            "host name", f"{name} is not found ({error.strerror or error})", "matters for several hosts: set MASTER_ADDR to an address"
        )
    else:
        loops = all(address.startswith("127.") or address == "::1" for address in addresses)
        text = f"{name} is {', '.join(addresses)}"
        advice = "matters for several hosts: give rank 0's address as MASTER_ADDR"
        yield warning("host name", f"{text}: itself alone", advice) if loops else good("host name", text)
    address, port = os.environ.get("MASTER_ADDR", "127.0.0.1"), os.environ.get("MASTER_PORT", "0")
    if port.isdecimal() and int(port):
        try:
            preflight.check_port(address, int(port))
            yield good("ports", f"MASTER_ADDR:MASTER_PORT {address}:{port} is free")
        except LaunchError as error:
            yield bad("ports", str(error), "choose another MASTER_PORT")
        return
    with socket.socket() as probe:
        probe.bind(("", 0))
        yield good("ports", f"{probe.getsockname()[1]} and others are free; MASTER_PORT is not set, the launcher chooses")


def slurm() -> Iterator[Finding]:
    """The state of Slurm, if it is installed."""
    if shutil.which("sinfo") is None:
        yield good("Slurm", "not on this host")
        return
    version = _output(["sinfo", "--version"])
    job = os.environ.get("SLURM_JOB_ID")
    if job:
        facts = {name: os.environ.get(f"SLURM_{name}") for name in ("JOB_NODELIST", "NTASKS", "CPUS_PER_TASK", "GPUS_ON_NODE")}
        left = _output(["squeue", "-h", "-j", job, "-o", "%L"])
        known = ", ".join(f"{name} {value}" for name, value in facts.items() if value)
        yield good("Slurm", f"{version}, in job {job}: {known}; {left or 'unknown'} left")
        return
    parts = _output(["sinfo", "-h", "-o", "%P %a %D nodes %t"]).splitlines()
    up = [part for part in parts if " up " in part]
    if up:
        yield good("Slurm", f"{version}; {'; '.join(up[:4])}")
    else:
        yield warning("Slurm", f"its commands are here, but {'no partition is up' if parts else 'no controller answers'}", "see sinfo")


def wandb() -> Iterator[Finding]:
    """W&B's server answers, and an API key is set. The key itself is never shown."""
    mode = os.environ.get("WANDB_MODE", "")
    server = os.environ.get("WANDB_BASE_URL") or default_server()
    if mode in ("offline", "disabled"):
        yield good("W&B", f"WANDB_MODE={mode}: nothing is sent; `wandb sync` or `stillhouse wandb-replay` later")
        return
    if server is None:
        yield warning("W&B", "not installed", "pip install wandb, or report.wandb=off")
        return
    message, reached = _answer(server)
    advice = "report.wandb=offline on such nodes, and `stillhouse wandb-replay` from one that reaches it"
    yield good("W&B", message) if reached else warning("W&B", message, advice)
    if os.environ.get("WANDB_API_KEY") or _in_netrc(urlsplit(server).hostname or ""):
        yield good("W&B key", "there is one")
    else:
        yield warning("W&B key", "none", "`wandb login`, or WANDB_API_KEY; without it runs record offline")


def hub() -> Iterator[Finding]:
    """The model hub answers, so models and tokenizers can be named."""
    if os.environ.get("HF_HUB_OFFLINE", "") not in ("", "0"):
        yield good("model hub", "HF_HUB_OFFLINE is set: folders and what is in the cache already")
        return
    message, reached = _answer(os.environ.get("HF_ENDPOINT") or HUB)
    yield (
        good("model hub", message)
        if reached
        else warning("model hub", message, "use model folders, and set HF_HUB_OFFLINE=1 to lose no time")
    )


def _answer(server: str) -> tuple[str, bool]:
    """(what a server did when it was asked, whether it answered at all)."""
    try:
        with urllib.request.urlopen(server, timeout=ANSWER_SECONDS) as answer:
            return f"{server} answers ({answer.status})", True
    except HTTPError as error:
        with error:
            return f"{server} answers ({error.code})", error.code < 500
    except (OSError, URLError, ValueError) as error:
        return f"{server}: {getattr(error, 'reason', None) or error}", False


def _in_netrc(host: str) -> bool:
    path = Path(os.environ.get("NETRC") or "~/.netrc").expanduser()
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _output(command: list[str]) -> str:
    """The output of a command; empty if it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
