"""Matrix products of the vocabulary head: logits of a chunk, and the gradient of the decoder's weight.

On a CPU, memory that is given back to the system costs a page fault for each page when it is needed again. So large tensors of the head
are kept for the next micro-batch.
"""

import torch
from torch import Tensor

from kd.models.outputs import Decoder
from kd.terms.logit_tile import Scratch

KEPT_BYTES = 128 << 20
"""A larger tensor is not kept. The page faults of one are a small share of the time that its products take."""
_KEPT: dict[str, Tensor] = {}


def kept(role: str, rows: int, columns: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """[rows, columns] with any values. On a CPU it is the same memory for the same role, so only one tensor of a role is in use."""
    size = rows * columns * dtype.itemsize
    if device.type != "cpu" or size > KEPT_BYTES:
        return torch.empty(rows, columns, dtype=dtype, device=device)
    if role not in _KEPT or len(_KEPT[role]) < size:
        _KEPT.pop(role, None)
        _KEPT[role] = torch.empty(size, dtype=torch.uint8)
    return _KEPT[role][:size].view(dtype).view(rows, columns)


def kept_scratch(rows: int, vocabulary: int, device: torch.device) -> Scratch:
    """Scratch tensors [rows, V], in memory that is kept."""
    return Scratch(rows, vocabulary, device, lambda number: kept(f"tile {number}", rows, vocabulary, torch.float32, device))


class Products:
    """One model's logits of a chunk without the bias, [chunk, V] in the weight's dtype. Each chunk uses the same memory."""

    def __init__(self, role: str, transformed: Tensor, decoder: Decoder, rows: int, columns: int | None = None) -> None:
        """role: see `kept`. transformed: states [N, D]. columns: of a row in memory; None: V. What follows column V may be anything."""
        self.transformed, self.decoder = transformed, decoder
        self.bias = decoder.bias[: decoder.vocabulary].float()
        self.memory = kept(role, rows, columns or decoder.vocabulary, decoder.weight.dtype, transformed.device)
        self.logits = self.memory[:, : decoder.vocabulary]

    def compute(self, chunk: slice) -> Tensor:
        """The products of a chunk [n, V], until the next call."""
        states = self.transformed[chunk]
        return self.decoder.products(states, self.logits[: len(states)])

    def tile(self, rows: slice, scratch: Scratch) -> Tensor:
        """Logits of some rows of the chunk, [n, V] fp32."""
        products = self.logits[rows]
        fp32 = scratch.take(len(products))
        if products.dtype == torch.float32:
            return torch.add(products, self.bias, out=fp32)
        return fp32.copy_(products).add_(self.bias)


class WeightGradient:
    """The decoder's weight gradient, summed over chunks; in fp32 where the weights are not: bf16 would lose what later chunks add."""

    def __init__(self, decoder: Decoder, chunks: int) -> None:
        weight = decoder.weight
        self.decoder, self.chunks = decoder, chunks
        if chunks == 1 or weight.dtype == torch.float32:
            self.sum = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
        else:
            self.sum = kept("weight gradient", weight.shape[0], weight.shape[1], torch.float32, weight.device)
        self.added = 0

    def add(self, gradient: Tensor, states: Tensor) -> None:
        """gradient [n, V], states [n, D]: adds gradient^T states, by slices so that no second [V, D] exists."""
        for rows in self.decoder.slices:
            columns, total = gradient[:, rows].T, self.sum[rows]
            if total.dtype != states.dtype:
                product = columns @ states
                total.add_(product) if self.added else total.copy_(product)
            elif self.added:
                total.addmm_(columns, states)
            else:
                torch.mm(columns, states, out=total)
        self.added += 1

    def total(self) -> Tensor:
        """[V', D] in the weight's own dtype; 0 for rows that pad the vocabulary."""
        self.sum[self.decoder.vocabulary if self.added else 0 :].zero_()
        return self.sum.to(self.decoder.weight.dtype)
