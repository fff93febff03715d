"""fp32 matrix products through oneDNN, on processors where MKL is slow.

torch multiplies fp32 matrices with MKL. On AMD processors MKL takes its AVX2 kernels, at half of the rate of oneDNN's AVX-512 kernels.
torch has both libraries. It gives fp32 products to oneDNN under one setting alone: `fp32_precision = "bf16"`, which allows oneDNN to round
the inputs to bf16. oneDNN does so with AMX, and no AMD processor has it: there the products are those of fp32, to rounding. So the setting
is made on AMD processors without AMX, after products of several shapes were compared with float64.

Figures: docs/measurements.md.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

LARGEST_ERROR = 2e-6
"""Of the largest value of a product: a few times what fp32 leaves, and a thousandth of what bf16 leaves."""
SHAPES = ((64, 384, 384), (48, 256, 1024), (8, 64, 128))


def choose() -> bool:
    """Take oneDNN for fp32 products from now on, in this process, where it is faster and exact. True if it was taken. Idempotent."""
    if not gains():
        return False
    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = products.fp32_precision
    products.fp32_precision = "bf16"
    if _exact():
        return True
    products.fp32_precision = before
    return False


def chosen() -> bool:
    """True if oneDNN multiplies fp32 matrices in this process."""
    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    return bool(products.fp32_precision == "bf16")


@contextmanager
def torchs_own() -> Iterator[None]:
    """fp32 products as torch makes them by itself, for comparisons."""
    products: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    before = products.fp32_precision
    products.fp32_precision = "none"
    try:
        yield
    finally:
        products.fp32_precision = before


def gains(capabilities: Mapping[str, Any] | None = None) -> bool:
    """True for a processor on which oneDNN's fp32 products are faster than MKL's, and do not round to bf16. None: this processor."""
    capabilities = torch.cpu.get_capabilities() if capabilities is None else capabilities
    amx = any(present for name, present in capabilities.items() if name.startswith("amx"))
    return "AMD" in str(capabilities.get("cpu_name", "")) and bool(capabilities.get("avx512_f")) and not amx


def _exact() -> bool:
    """Products as layers make them (x W^T, its two gradients, and batches of them) agree with float64."""
    draw = torch.Generator().manual_seed(0)
    for rows, inner, columns in SHAPES:
        x, weight, bias = (torch.randn(*size, generator=draw) for size in ((rows, inner), (columns, inner), (columns,)))
        gradient = torch.randn(rows, columns, generator=draw)
        pairs = [
            (torch.addmm(bias, x, weight.T), torch.addmm(bias.double(), x.double(), weight.double().T)),
            (gradient @ weight, gradient.double() @ weight.double()),
            (gradient.T @ x, gradient.double().T @ x.double()),
            (torch.bmm(x[None], weight.T[None]), torch.bmm(x.double()[None], weight.double().T[None])),
        ]
        if any(float((fast - exact).abs().max() / exact.abs().max()) > LARGEST_ERROR for fast, exact in pairs):
            return False
    return True
