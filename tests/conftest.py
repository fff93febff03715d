"""What tests of every room share."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling


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


class Scheduling(LoadScopeScheduling):
    """Each test goes to the next free worker, but for those that share one cluster, or a count."""

    def _split_scope(self, nodeid: str) -> str:
        together = ("tests/slurm/", "tests/test_fuzz.py")
        return next((place for place in together if nodeid.startswith(place)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)
