"""Memory of freed tensors is kept by the process, so that the next tensors cost no page faults."""

import ctypes
import os
import resource
import subprocess
import sys

import pytest
import torch

from kd.kernels import host_memory

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="needs glibc")
MIB = 1 << 20


@pytest.fixture(autouse=True)
def no_limits_of_the_user(monkeypatch):
    for name in (*host_memory.VARIABLES, "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    with host_memory.as_by_default():
        yield


FIRST, SECOND = 48 * MIB, 32 * MIB
"""Sizes of two tensors, one after the other. The second fits into the first's memory, whatever is allocated in between."""
PAGES = SECOND // resource.getpagesize()


def page_faults_of_a_second_tensor() -> int:
    torch.ones(FIRST, dtype=torch.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(SECOND, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_memory_of_a_freed_tensor_costs_no_page_faults_again():
    assert page_faults_of_a_second_tensor() >= PAGES
    assert host_memory.keep()
    assert page_faults_of_a_second_tensor() < PAGES / 10


def test_kept_memory_can_be_given_back():
    def held() -> int:
        with open("/proc/self/statm", encoding="ascii") as status:
            return int(status.read().split()[1]) * resource.getpagesize()

    assert host_memory.keep()
    before = held()
    torch.ones(128 * MIB, dtype=torch.uint8)
    assert held() > before + 100 * MIB
    host_memory.give_back()
    assert held() < before + 20 * MIB


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_TRIM_THRESHOLD_", "131072"), ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=131072")]
)
def test_limits_of_the_environment_stay(monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    assert not host_memory.keep()


def test_a_process_that_trains_keeps_its_memory():
    """The limits are made where ranks meet."""
    code = (
        "import torch, resource; from kd.distributed import process_group; process_group.start();"
        f"torch.ones({FIRST}, dtype=torch.uint8); before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt;"
        f"torch.ones({SECOND}, dtype=torch.uint8); print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ))
    assert int(result.stdout.split()[-1]) < PAGES / 10
