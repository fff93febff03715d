"""Bytes of activations that autograd keeps of one window, per layer and beside the layers.

`count_activations` runs the student on torch's meta device and counts what is saved, each storage once. `closed_form` is the same by
formula for BERT-like layers without dropout. A test holds both against each other and against a real forward pass.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from kd.batch import IGNORED, Batch
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder, kernel_for
from kd.models.loading import untrained

BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
ATTENTION_COST = {
    "eager": lambda a, window, heads: a * heads * window,
    "sdpa": lambda a, window, heads: a * window + 4 * heads,
    "documents": lambda a, window, heads: a * heads * window,
}
"""Bytes that attention keeps per token and layer, beside queries, keys, values and its output, by kernel.

eager: the probabilities. sdpa: the log-sum-exp, and the float mask that torch makes of the bool one in each layer.
documents: the probabilities within each document, whose mean length stands for the window; windows of one document where it is not known.
"""


@dataclass(frozen=True)
class Activations:
    """Bytes of one window. layer: of one layer (the largest); outside: of embeddings and the last norm. entry: a layer's input."""

    layers: int
    layer: int
    outside: int
    entry: int
    exact: bool = True
    """False: by formula, because the family's code does not run without weights."""

    @property
    def kept(self) -> int:
        """Without checkpointing: all of it."""
        return self.layers * self.layer + self.outside

    @property
    def checkpointed(self) -> int:
        """With checkpointing: each layer's input, and one layer that is computed again."""
        return self.layers * self.entry + self.layer + self.outside

    def bytes(self, checkpointing: bool) -> int:
        """Of one window."""
        return self.checkpointed if checkpointing else self.kept


def attention_bytes(kernel: str, element: int, window: int, heads: int) -> int:
    """Bytes that a kernel keeps per token and layer. An unknown kernel counts as sdpa."""
    return ATTENTION_COST.get(kernel, ATTENTION_COST["sdpa"])(element, window, heads)


def closed_form(layers: int, width: int, inner: int, heads: int, window: int, kernel: str, precision: str) -> Activations:
    """Activations of BERT's layers without dropout.

    Per token and layer: a (8 D + 2 F) + 4 a + attention. Per token beside the layers: a D + 2 a + 16.
    """
    a = BYTES[precision]
    layer = window * (a * (8 * width + 2 * inner) + 4 * a + attention_bytes(kernel, a, window, heads))
    return Activations(layers, layer, window * (a * width + 2 * a + 16), window * a * width, exact=False)


def count_activations(student: Encoder, kernel: str, window: int, precision: str, document_tokens: int = 0) -> Activations:
    """Activations of a student by a forward pass of one window without weights. student: on the meta device.

    document_tokens: mean length of the documents that kernel `documents` computes apart; 0: a window is one document.
    """
    a, heads = BYTES[precision], student.heads
    names = student.family.config
    inner = int(getattr(student.hf.config, names.inner))
    formula = closed_form(student.layers, student.width, inner, heads, window, kernel, precision)
    if "eager" not in student.family.kernels:
        return formula
    dropout = names.attention_dropout
    fused = kernel != "eager" and kernel_for(student.family, kernel) != "eager" and not getattr(student.hf.config, dropout, 0.0)
    try:
        inside, outside = _saved(student, window, precision, maps=not fused)
    except (RuntimeError, NotImplementedError, ValueError, TypeError, KeyError, AttributeError):
        return formula  # a family whose code needs values: relative positions, tables of buckets
    attended = document_tokens or window if kernel == "documents" else window
    layer = max(inside) + (window * attention_bytes(kernel, a, attended, heads) if fused else 0)
    return Activations(student.layers, layer, outside, window * a * student.width)


def _saved(student: Encoder, window: int, precision: str, maps: bool) -> tuple[list[int], int]:
    """(bytes saved in each layer, bytes saved outside of layers) of one window with eager attention.

    maps: count the tensors [..., S, S] too. torch's fused kernels do not keep them, except where attention has dropout on a CPU.
    """
    dtype = torch.float32 if precision == "fp32" else torch.bfloat16
    with torch.device("meta"), quiet_transformers():
        encoder = untrained(student.hf.config, "eager").to(dtype).train(student.training)
        ids = torch.zeros(1, window, dtype=torch.int64)
        batch = Batch(ids, torch.full_like(ids, IGNORED), ids, torch.ones_like(ids), ids[:, 0])
        seen: dict[int, Tensor] = {}
        weights = {_storage(weight) for weight in encoder.parameters()}
        totals: dict[int, int] = {}
        place = [-1]

        def pack(tensor: Tensor) -> Tensor:
            key = _storage(tensor)
            is_map = tensor.dim() >= 3 and tensor.shape[-2:] == (window, window)
            if key not in weights and key not in seen and (maps or not is_map):
                seen[key] = tensor
                totals[place[0]] = totals.get(place[0], 0) + tensor.untyped_storage().nbytes()
            return tensor

        handles = []
        for number, layer in enumerate(dict.fromkeys(encoder.layer_modules)):

            def before(_: Any, __: Any, number: int = number) -> None:
                place[0] = number

            def after(_: Any, __: Any, ___: Any) -> None:
                place[0] = -1

            handles += [layer.register_forward_pre_hook(before), layer.register_forward_hook(after)]
        with saved_tensors_hooks(pack, lambda tensor: tensor):
            encoder(batch)
        for handle in handles:
            handle.remove()
    return [total for number, total in totals.items() if number >= 0], totals.get(-1, 0)


def _storage(tensor: Tensor) -> int:
    """The identity of a tensor's storage, also without memory."""
    return int(tensor.untyped_storage()._cdata)
