"""Starting ranks as child processes of this host, as torchrun or srun would."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from stillhouse.files import ROOT

LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
PATIENCE_SECONDS = 60.0  # with the ranks that wait for one that failed


def free_port() -> int:
    """A port that nobody listens on. Two calls at the same time give different ports."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def child_environment() -> dict[str, str]:
    """This process's environment without a launcher's variables, with the project on the path."""
    inherited = {name: value for name, value in os.environ.items() if name not in LAUNCHER_VARIABLES}
    inherited["PYTHONPATH"] = os.pathsep.join([str(ROOT), inherited.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    return inherited


def rank_environments(ranks: int) -> list[dict[str, str]]:
    """The launcher's variables for each rank of a world on this host; one rank needs none."""
    if ranks == 1:
        return [{}]
    shared = {"WORLD_SIZE": str(ranks), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    return [shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(ranks)]


class Processes:
    """The ranks of one Python command."""

    def __init__(self, command: Sequence[str], ranks: int, output: Path | None, environment: dict[str, str]) -> None:
        """command: the words after the interpreter. output: a file that gets what all ranks print."""
        self._failed_at: float | None = None
        with open(output if output is not None else os.devnull, "ab") as file:
            self._ranks = [
                subprocess.Popen([sys.executable, *command], stdout=file, stderr=file, env=environment | variables)
                for variables in rank_environments(ranks)
            ]

    def poll(self) -> int | None:
        """The exit code once all ranks have ended, None before. A rank that failed takes the others, which wait for it, along."""
        codes = [rank.poll() for rank in self._ranks]
        if any(codes) and None in codes:
            self._failed_at = self._failed_at or time.monotonic()
            if time.monotonic() - self._failed_at > PATIENCE_SECONDS:
                self.stop(signal.SIGKILL)
        return None if None in codes else next((code for code in codes if code), 0)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Pass a signal on to the ranks that still live."""
        for rank in self._ranks:
            if rank.poll() is None:
                rank.send_signal(number)
