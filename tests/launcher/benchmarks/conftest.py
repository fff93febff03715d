"""`stillhouse bench` as a forked process."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from fork_server import ROOT, ForkServer


@pytest.fixture
def bench(fork_server: ForkServer, tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """bench(*words): the exit code of a forked `stillhouse bench`, and what it prints."""

    def call(*words: str) -> tuple[int, str]:
        own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "COLUMNS": "200"}
        log = tmp_path / "bench.log"
        log.unlink(missing_ok=True)
        return fork_server.start(["stillhouse", "bench", *words], os.environ | own, log, tmp_path).wait(120), log.read_text()

    return call
