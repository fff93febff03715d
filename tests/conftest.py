"""What tests of every room share."""

import os
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

from launcher.extensions import VARIABLE, extensions_folder, prepare_extensions


@pytest.fixture(scope="session")
def compiled() -> str:
    """The folder with DeepSpeed's communication op, compiled once for all tests: TORCH_EXTENSIONS_DIR of child processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, os.environ.get(VARIABLE, ""))  # restored afterwards: other tests look at what a run does without it
        folder = str(extensions_folder())
        prepare_extensions()
    return folder


class Scheduling(LoadScopeScheduling):
    """Each test goes to the next free worker, but for those that share one cluster, or a count."""

    def _split_scope(self, nodeid: str) -> str:
        together = ("tests/slurm/", "tests/test_fuzz.py")
        return next((place for place in together if nodeid.startswith(place)), nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling:
    return Scheduling(config, log)
