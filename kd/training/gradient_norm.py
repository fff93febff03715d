"""The norm of all gradients of an update, without copies of them."""

from collections.abc import Iterable

import torch
from torch import Tensor

BLOCK = 4096
"""Elements that are summed in fp32. torch sums a whole tensor in fp32 on CPUs: 0.1 % off for 23 million elements."""


def gradient_norm(gradients: Iterable[Tensor]) -> Tensor:
    """sqrt of the sum of squares of all elements [] float64, on the gradients' device. NaN and infinity stay.

    Squares are summed in fp32 within a block of elements, and in float64 over blocks. So the relative error is about 1e-8.
    """
    norms: list[Tensor] = []
    for gradient in gradients:
        flat = gradient.detach().reshape(-1)
        whole = len(flat) - len(flat) % BLOCK
        if whole:
            norms.append(torch.linalg.vector_norm(flat[:whole].view(-1, BLOCK), dim=1, dtype=torch.float32))
        if whole < len(flat):
            norms.append(torch.linalg.vector_norm(flat[whole:], dtype=torch.float32).reshape(1))
    if not norms:
        return torch.zeros((), dtype=torch.float64)
    return torch.linalg.vector_norm(torch.cat(norms).double())
