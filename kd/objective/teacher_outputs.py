"""The outputs of all teachers for one micro-batch, and the logits that the terms see of them.

Several teachers teach the weighted mean of their distributions at the term's own temperature T: p = sum_k w_k softmax(z_k / T).
This is the mean of an ensemble's probabilities (Hinton, Vinyals, Dean 2015, arXiv:1503.02531, section 2). A term gets it as logits
T log p, whose softmax at T is p. So a formula on softmax(logits / T) holds for one teacher and for many.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from kd.models.outputs import EncoderOutputs


@dataclass(frozen=True)
class LogitRequest:
    """The logits that a term needs: those of one teacher, or (teacher None) those of the ensemble at a temperature."""

    teacher: int | None
    temperature: float = 1.0


@dataclass(frozen=True)
class TeacherOutputs:
    """Outputs by the teacher's number, of the teachers that some term needs. weights: of all teachers, summing to 1."""

    outputs: Mapping[int, EncoderOutputs] = field(default_factory=dict)
    weights: Sequence[float] = (1.0,)

    def logits(self, requests: Sequence[LogitRequest | None], chunk: slice | Tensor) -> list[Tensor | None]:
        """[n, V] fp32 for each request (None: None), at some of the selected positions: a slice, or their numbers."""
        return self.answers(requests, {number: _logits(self.outputs[number], chunk) for number in self.asked(requests)})

    def asked(self, requests: Sequence[LogitRequest | None]) -> list[int]:
        """The numbers of the teachers whose logits a request reads."""
        asked = {request.teacher for request in requests if request is not None}
        return [number for number in self.outputs if number in asked or None in asked]

    def answers(self, requests: Sequence[LogitRequest | None], logits: Mapping[int, Tensor]) -> list[Tensor | None]:
        """[n, V] fp32 for each request (None: None), from the teachers' logits [n, V] fp32. Equal requests get the same tensor."""
        results: dict[LogitRequest, Tensor] = {}
        for number, one in logits.items():
            for request in dict.fromkeys(requests):
                if request is None or request.teacher not in (None, number):
                    continue
                if request.teacher is not None:
                    results[request] = one
                    continue
                if one.shape[-1] == 1:  # regression: a number, and no distribution
                    results[request] = results.get(request, 0.0) + self.weights[number] * one / request.temperature
                    continue
                part = F.log_softmax(one / request.temperature, dim=-1).add_(math.log(self.weights[number]))
                results[request] = part if request not in results else torch.logaddexp(results[request], part, out=part)
        scaled = {request: values if request.teacher is not None else values * request.temperature for request, values in results.items()}
        return [None if request is None else scaled[request] for request in requests]


def _logits(outputs: EncoderOutputs, chunk: slice | Tensor) -> Tensor:
    """[n, V] fp32 of one teacher at a chunk of the selected positions."""
    if outputs.logits is not None:
        return outputs.logits[chunk].float()
    assert outputs.transformed is not None
    assert outputs.decoder is not None
    return outputs.decoder.logits(outputs.transformed[chunk])
