"""The last linear map of a masked-language-model head."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Decoder:
    """weight [V', D], bias [V'], of which the first `vocabulary` rows are real tokens."""

    weight: Tensor
    bias: Tensor
    vocabulary: int

    def logits(self, transformed: Tensor) -> Tensor:
        """[N, D] -> [N, V] fp32; rows added to a vocabulary for alignment are left out."""
        return F.linear(transformed, self.weight[: self.vocabulary], self.bias[: self.vocabulary]).float()
