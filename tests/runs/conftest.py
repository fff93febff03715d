"""Whole runs as a user starts them: real processes, real shards, a small teacher of random weights."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
from fork_server import Forked, ForkServer
from run_lines import free_port, train_lines
from school import School, make_school

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def school(tmp_path_factory: pytest.TempPathFactory) -> School:
    """See make_school."""
    return make_school(tmp_path_factory.mktemp("school"))


class Started:
    """One run's processes."""

    def __init__(self, processes: list[subprocess.Popen[bytes]] | list[Forked], logs: list[Path], folder: Path) -> None:
        self.processes = processes
        self.logs = logs
        self.folder = folder

    @property
    def output(self) -> str:
        return "\n".join(log.read_text(errors="replace") for log in self.logs)

    def wait(self, timeout_seconds: float = 180) -> list[int]:
        """The exit codes."""
        try:
            return [process.wait(timeout_seconds) for process in self.processes]
        finally:
            self.kill()

    def wait_for_update(self, update: int, timeout_seconds: float = 120) -> None:
        """Until a train line of that update, or a later one, is in metrics.jsonl."""
        end = time.monotonic() + timeout_seconds
        while not any(line["update"] >= update for line in train_lines(self.folder)):
            assert all(process.poll() is None for process in self.processes), self.output
            assert time.monotonic() < end, self.output
            time.sleep(0.005)

    def signal(self, number: int) -> None:
        for process in self.processes:
            if process.poll() is None:
                os.kill(process.pid, number)

    def kill(self) -> None:
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.wait()


@pytest.fixture
def start(school: School, tmp_path: Path, fork_server: ForkServer) -> Callable[..., Started]:
    """start(folder, *settings, ranks=1, config="tiny"): launcher/run.py on so many ranks, as torchrun or srun would.

    limits, constants: see ForkServer.start. roots: ranks that run another copy of the project. verb: of `stillhouse`, instead of a
        run. task: the run has no shards.
    """
    started: list[Started] = []

    def begin(
        folder: Path,
        *settings: str,
        ranks: int = 1,
        config: str = "tiny",
        arguments: tuple[str, ...] = (),
        limits: Mapping[str, int] = MappingProxyType({}),
        constants: Mapping[str, float] = MappingProxyType({}),
        roots: Mapping[int, Path] = MappingProxyType({}),
        verb: str | None = None,
        task: bool = False,
    ) -> Started:
        base = [f"run.folder={folder}"] if task else [f"run.folder={folder}", f"data.shards={school.shards}"]
        if config == "tiny":
            base.append(f"teacher.model={school.teacher}")
        processes: list[Any] = []
        logs = []
        port = free_port()
        for rank in range(ranks):
            log = tmp_path / f"{folder.name}-{len(started)}-{rank}.log"
            environment = {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_SILENT": "true", "NO_COLOR": "1"}
            if ranks > 1:
                environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(ranks)}
                environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
            words = ["--config", config, *base, *settings, *arguments]
            if rank not in roots:
                door = ["stillhouse", verb] if verb else ["launcher/run.py"]
                processes.append(fork_server.start([*door, *words], environment, log, tmp_path, limits, constants))
            else:
                command = [sys.executable, str(roots[rank] / "launcher" / "run.py"), *words]
                with log.open("wb") as file:
                    processes.append(subprocess.Popen(command, stdout=file, stderr=file, env=environment, cwd=tmp_path))
            logs.append(log)
        started.append(Started(processes, logs, folder))
        return started[-1]

    yield begin
    for run in started:
        run.kill()
