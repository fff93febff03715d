"""The rate of matrix products on this process's device. Utilisation is the share of it that updates reach."""

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
SIDE = {"cpu": 1024, "cuda": 4096}
"""Rows and columns of the matrices that `best_gemm_rate` multiplies."""
LEAST, MOST, ENOUGH_SECONDS = 3, 50, 0.1
"""Repetitions, and the time after which no more follow."""


def product(precision: str, rows: int, width: int, columns: int, where: torch.device) -> Callable[[], Tensor]:
    """[rows, width] x [width, columns] as a call. The values come from a generator of its own: no random state of a run changes."""
    drawn = torch.Generator(where).manual_seed(0)
    left = torch.randn(rows, width, device=where, generator=drawn).to(DTYPES[precision])
    right = torch.randn(columns, width, device=where, generator=drawn).to(DTYPES[precision])
    return lambda: F.linear(left, right)


def best_gemm_rate(precision: str, where: torch.device) -> float:
    """FLOP/s of the fastest of several large square products, in less than a second."""
    side = SIDE.get(where.type, SIDE["cuda"])
    multiply = product(precision, side, side, side, where)
    multiply()
    taken: list[float] = []
    while len(taken) < LEAST or (sum(taken) < ENOUGH_SECONDS and len(taken) < MOST):
        wait(where)
        started = time.perf_counter()
        multiply()
        wait(where)
        taken.append(time.perf_counter() - started)
    return 2.0 * side**3 / max(min(taken), 1e-9)


def wait(where: torch.device) -> None:
    """Until the device has done what it was given."""
    if where.type == "cuda":
        torch.cuda.synchronize()
