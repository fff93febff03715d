"""The outputs of one encoder, from its forward pass to the loss terms."""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from kd.models.states import StateKey

WEIGHTS_OF_A_SLICE, LEAST_ROWS = 786_432, 256
"""On a CPU, a product with so many weights of the decoder keeps them in the second-level cache."""


@dataclass(frozen=True)
class Decoder:
    """The last linear map of a masked-language-model head: weight [V', D], bias [V'].

    The first `vocabulary` rows are real tokens.
    """

    weight: Tensor
    bias: Tensor
    vocabulary: int

    def logits(self, transformed: Tensor) -> Tensor:
        """[N, D] -> [N, V] fp32. Rows that pad the vocabulary are left out."""
        return F.linear(transformed, self.weight[: self.vocabulary], self.bias[: self.vocabulary]).float()

    def products(self, transformed: Tensor, out: Tensor) -> Tensor:
        """[N, D] -> [N, V] in the weight's dtype, into `out`, without the bias and without a gradient.

        One product per slice of the weight, which stays in the caches. A product without a bias is faster.
        """
        for rows in self.slices:
            torch.mm(transformed, self.weight[rows].T, out=out[:, rows])
        return out

    @property
    def slices(self) -> list[slice]:
        """Rows of real tokens of the weight, for one matrix product each. On a GPU all of them at once."""
        step = max(LEAST_ROWS, WEIGHTS_OF_A_SLICE // self.weight.shape[1]) if self.weight.device.type == "cpu" else self.vocabulary
        return [slice(start, min(start + step, self.vocabulary)) for start in range(0, self.vocabulary, step)]


class EncoderOutputs(NamedTuple):
    """The outputs of one model for one micro-batch.

    last_hidden: [B, S, D], output of the last layer.
    states: the requested hidden tensors, each [B, S, its width].
    transformed: [N, D], the head's transform at the selected positions; None where no term needs logits.
    decoder: turns `transformed` into logits; None where no term needs logits.
    logits: all logits of a task's head (kd.tasks.model); None for a masked-language model.

    A tuple and not a dataclass: the hooks of DeepSpeed's ZeRO-3 find tensors in tuples only.
    """

    last_hidden: Tensor
    states: dict[StateKey, Tensor]
    transformed: Tensor | None = None
    decoder: Decoder | None = None
    logits: Tensor | None = None
