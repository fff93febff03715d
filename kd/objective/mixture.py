"""The logits that teachers give the terms, for a few hundred tokens at a time: one teacher's own, or those of several teachers' mixture.

Several teachers teach the weighted mean of their distributions at the term's own temperature T: p = sum_k w_k softmax(z_k / T)
(an ensemble's mean of probabilities, Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2). A term sees it as logits, T log p, whose
softmax at T is p: so every formula on softmax(logits / T) is right for one teacher and for many, and knows nothing of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from kd.models.outputs import Decoder


@dataclass(frozen=True)
class Wanted:
    """What a term wants: one teacher's logits, or (teacher None) those of the mixture at a temperature."""

    teacher: int | None
    temperature: float = 1.0


@dataclass(frozen=True)
class TeacherHeads:
    """Teachers by number: transformed states [N, D_k] of the same N tokens and the decoder of each. weights: of all, summing to 1."""

    heads: Mapping[int, tuple[Tensor, Decoder]]
    weights: Sequence[float] = (1.0,)

    def logits(self, wanted: Sequence[Wanted | None], chunk: slice) -> list[Tensor | None]:
        """[n, V] fp32 for each of `wanted` (None: nothing). One teacher's logits exist at a time, besides what is wanted."""
        found: dict[Wanted, Tensor] = {}
        for number, (transformed, decoder) in self.heads.items():
            own = [one for one in dict.fromkeys(wanted) if one is not None and one.teacher in (None, number)]
            if not own:
                continue
            logits = decoder.logits(transformed[chunk])
            for one in own:
                if one.teacher is not None:
                    found[one] = logits
                    continue
                part = F.log_softmax(logits / one.temperature, dim=-1).add_(math.log(self.weights[number]))
                found[one] = part if one not in found else torch.logaddexp(found[one], part, out=part)
            del logits
        mixed = {one: values if one.teacher is not None else values * one.temperature for one, values in found.items()}
        return [None if one is None else mixed[one] for one in wanted]
