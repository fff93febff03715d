"""The outputs of one encoder, from its forward pass to the loss terms."""

from dataclasses import dataclass
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor

from kd.models.states import StateKey


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
