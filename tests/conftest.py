"""What tests of every room share."""

import os

import pytest

from launcher.extensions import VARIABLE, extensions_folder, prepare_extensions


@pytest.fixture(scope="session")
def compiled() -> str:
    """The folder with DeepSpeed's communication op, compiled once for all tests: TORCH_EXTENSIONS_DIR of child processes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, os.environ.get(VARIABLE, ""))  # restored afterwards: other tests look at what a run does without it
        folder = str(extensions_folder())
        prepare_extensions()
    return folder
