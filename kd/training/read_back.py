"""Small tensors as Python numbers, with one read of each device: a GPU has to finish its work for each read."""

from collections.abc import Sequence

import torch
from torch import Tensor


def read_together(tensors: Sequence[Tensor]) -> list[list[float]]:
    """The values of each tensor, flat. fp32 and float64 values are exact."""
    flat: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors:
        flat.setdefault(tensor.device, []).append(tensor.detach().double().flatten())
    values = {device: iter(torch.cat(parts).tolist()) for device, parts in flat.items()}
    return [[next(values[tensor.device]) for _ in range(tensor.numel())] for tensor in tensors]
