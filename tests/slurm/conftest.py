"""A real Slurm of three hosts for the tests of this folder, started once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import Cluster, running, what_it_lacks
from stand_in import STAND_IN


@pytest.fixture
def stand_in(tmp_path: Path) -> Path:
    """A folder to submit from, with a trainer of its own."""
    (tmp_path / "launcher").mkdir()
    (tmp_path / "launcher" / "run.py").write_text(STAND_IN)
    return tmp_path


@pytest.fixture(scope="session")
def slurm() -> Iterator[Cluster]:
    lacks = what_it_lacks()
    if lacks:
        message = f"a Slurm of three hosts needs {lacks}"
        if os.environ.get("CI") == "true":
            pytest.fail(f"{message} (in CI this is a failure)")
        pytest.skip(message)
    with running(NODES="3", CPUS="4 4 2", GPUS="0 2 1") as cluster:
        yield cluster
