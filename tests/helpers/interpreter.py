"""A process in which Triton's interpreter runs kernels on CPU tensors. It has to be chosen before Triton is imported."""

import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import pytest

MISSING = "Triton: expected it to be installed, got no package of that name; run `make .venv/.triton`"


def need_triton() -> None:
    """Skips a test without Triton with one line, and fails it in CI."""
    if find_spec("triton") is None:
        if os.environ.get("CI") == "true":
            pytest.fail(MISSING)
        pytest.skip(MISSING)


@contextmanager
def interpreter() -> Iterator[ProcessPoolExecutor]:
    """Runs functions of importable modules: `submit(function, …).result()`."""
    with pytest.MonkeyPatch.context() as patch, ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), initializer=_quiet) as pool:
        patch.setenv("TRITON_INTERPRET", "1")
        pool.submit(int).result()  # starts the process
        patch.undo()
        yield pool


def _quiet() -> None:
    np.seterr(invalid="ignore")  # -inf - -inf in columns after the vocabulary, which are left out
