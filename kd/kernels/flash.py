"""Flash attention over documents of any lengths, one after the other: torch's `varlen_attn`. It has no dropout and needs a GPU."""

from functools import lru_cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

FIRST_CAPABILITY = (8, 0)
"""Of a GPU that flash attention runs on: Ampere."""
LARGEST_HEAD = 256


def takes(query: Tensor) -> bool:
    """True if states [..., d] of this device and dtype can go through `attend`."""
    size = query.shape[-1]
    fits = query.dtype in (torch.bfloat16, torch.float16) and size % 8 == 0 and size <= LARGEST_HEAD
    return fits and query.numel() > 0 and _device_takes(query.device)


@lru_cache
def _device_takes(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.version.hip is None and torch.cuda.get_device_capability(device) >= FIRST_CAPABILITY
    return device.type == "meta"  # shapes alone


@lru_cache
def _kernels() -> Any:
    """torch's module, which takes 1.7 s to import and is of use on GPUs alone."""
    return import_module("torch.nn.attention.varlen")


def attend(query: Tensor, key: Tensor, value: Tensor, starts: Tensor, longest: int, scaling: float) -> Tensor:
    """query, key, value [T, heads, d] -> [T, heads, d]. starts: [N + 1] int32, the first position of each document, and T.

    longest: positions of the longest document.
    """
    output = _kernels().varlen_attn(query, key, value, starts, starts, longest, longest, scale=scaling)
    assert isinstance(output, Tensor)
    return output
