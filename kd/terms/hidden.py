"""Terms on hidden states."""

from typing import ClassVar, Literal

import torch.nn.functional as F
from torch import Tensor

from kd.terms.view import TermSettings, TokenView


class HiddenCosine(TermSettings):
    """1 - cos(student, teacher) between last hidden states, 0 .. 2.

    DistilBERT (Sanh et al. 2019, arXiv:1910.01108, section 2): torch's CosineEmbeddingLoss with target 1, over tokens that are not padding.
    """

    reads: ClassVar[Literal["last_hidden"]] = "last_hidden"
    asks: ClassVar[frozenset[str]] = frozenset({"last_hidden"})

    kind: Literal["cosine"] = "cosine"

    def __call__(self, view: TokenView) -> Tensor:
        """last hidden states [N, D] of both -> [N] fp32."""
        assert view.student.last_hidden is not None
        assert view.teacher.last_hidden is not None
        return 1.0 - F.cosine_similarity(view.student.last_hidden.float(), view.teacher.last_hidden.float(), dim=-1)
