"""What tests of every room share."""

import os

import pytest

from launcher.extensions import extensions_folder, prepare_extensions


@pytest.fixture(scope="session")
def compiled() -> str:
    """The folder with DeepSpeed's communication op, compiled once for all tests; their child processes find it by TORCH_EXTENSIONS_DIR."""
    os.environ["TORCH_EXTENSIONS_DIR"] = str(extensions_folder())
    prepare_extensions()
    return os.environ["TORCH_EXTENSIONS_DIR"]
