"""What tests of every room share."""

import gc
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fork_server import HELPERS, ROOT, ForkServer
from run_lines import free_port
from xdist.scheduler import LoadScopeScheduling

from stillhouse.files import cache_folder


class Quota:
    """A folder whose files may take so much of a larger disk; what goes beyond fails with EDQUOT, said by the operating system."""

    def __init__(self, disk: Path) -> None:
        self.disk = disk
        self.folder = disk / "mine"

    def btrfs(self, *words: str) -> None:
        subprocess.run(["btrfs", *words], check=True, stdout=subprocess.DEVNULL)

    def limit(self, size: str) -> None:
        self.btrfs("filesystem", "sync", str(self.disk))  # what was removed counts until then
        self.btrfs("qgroup", "limit", size, str(self.folder))


@pytest.fixture(scope="session", autouse=True)
def users_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's cache folder. The tests, and the processes that they start, have a cache folder of their own."""
    users = cache_folder()
    os.environ["STILLHOUSE_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    return users


@pytest.fixture
def quota(tmp_path: Path) -> Iterator[Quota]:
    """A folder with a quota of 6 MB, on a file system of its own."""
    image, disk = tmp_path / "image", tmp_path / "quota"
    disk.mkdir()
    if os.geteuid() != 0 or shutil.which("mkfs.btrfs") is None:
        pytest.skip("a quota: needs root and btrfs-progs")
    image.touch()
    os.truncate(image, 128 * 1024**2)
    subprocess.run(["mkfs.btrfs", "-q", str(image)], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if subprocess.run(["mount", "-o", "loop", str(image), str(disk)], check=False).returncode:
        pytest.skip("a quota: needs the right to mount a btrfs")
    made = Quota(disk)
    made.btrfs("subvolume", "create", str(made.folder))
    made.btrfs("quota", "enable", str(disk))
    made.limit("6m")
    yield made
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture(scope="session")
def fork_server() -> Iterator[ForkServer]:
    """Processes without the seconds that importing takes."""
    server = ForkServer()
    yield server
    server.close()


@pytest.fixture
def run_ranks(tmp_path: Path, fork_server: ForkServer) -> Callable[..., str]:
    """run_ranks(ranks, script, *arguments): a script on so many processes of one gloo group; their output, if all end well.

    script: a path, or the name of one in tests/helpers.
    """

    def run(ranks: int, script: str | Path, *arguments: object, timeout_seconds: float = 240.0) -> str:
        shared = {
            **os.environ,
            "WORLD_SIZE": str(ranks),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(free_port()),
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }
        command = [str(script if isinstance(script, Path) else HELPERS / f"{script}.py"), *map(str, arguments)]
        logs = [tmp_path / f"output-{rank}.log" for rank in range(ranks)]
        processes = [
            fork_server.start(command, shared | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, log, tmp_path)
            for rank, log in enumerate(logs)
        ]
        try:
            codes = [process.wait(timeout_seconds) for process in processes]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        text = "\n".join(log.read_text(errors="replace") for log in logs)
        assert codes == [0] * ranks, f"exit codes {codes}\n{text}"
        return text

    return run


TOGETHER = (
    *("tests/slurm/", "tests/test_fuzz.py", "tests/launcher/deployment/", "tests/kd/export/test_onnx.py"),
    *("tests/kd/export/test_quantise.py", "tests/launcher/advice/", "tests/launcher/report/test_page.py"),
    *("tests/runs/test_augmented_tasks.py", "tests/runs/test_task_mistakes.py", "tests/runs/test_troubles.py"),
)
"""Tests that share one cluster, a count, graphs of models, or runs of a module's fixture, which each worker would make again."""


class Scheduling(LoadScopeScheduling):
    """Each test goes to the next free worker, but for those of one place in TOGETHER."""

    def _split_scope(self, nodeid: str) -> str:
        if nodeid.startswith("tests/slurm/test_before_sbatch.py"):  # needs no cluster
            return nodeid
        return next((place for place in TOGETHER if nodeid.startswith(place)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first, so that no worker is left with one at the end; before them those that wait for one cluster, one after the other."""
    markers = ("cluster", "slow")
    items.sort(key=lambda item: [item.get_closest_marker(name) is None for name in markers])


def pytest_collection_finish() -> None:
    """Leave what was imported and collected out of garbage collections: no test frees it."""
    gc.collect()
    gc.freeze()
