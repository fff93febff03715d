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
        """[n, V] fp32 for each request (None: None), at some of the selected positions: a slice, or their numbers.

        The logits of one teacher exist at a time, besides the results.
        """
        results: dict[LogitRequest, Tensor] = {}
        for number, outputs in self.outputs.items():
            distinct = [request for request in dict.fromkeys(requests) if request is not None and request.teacher in (None, number)]
            if not distinct:
                continue
            logits = _logits(outputs, chunk)
            for request in distinct:
                if request.teacher is not None:
                    results[request] = logits
                    continue
                if logits.shape[-1] == 1:  # regression: a number, and no distribution
                    results[request] = results.get(request, 0.0) + self.weights[number] * logits / request.temperature
                    continue
                part = F.log_softmax(logits / request.temperature, dim=-1).add_(math.log(self.weights[number]))
                results[request] = part if request not in results else torch.logaddexp(results[request], part, out=part)
            del logits
        scaled = {request: values if request.teacher is not None else values * request.temperature for request, values in results.items()}
        return [None if request is None else scaled[request] for request in requests]


def _logits(outputs: EncoderOutputs, chunk: slice | Tensor) -> Tensor:
    """[n, V] fp32 of one teacher at a chunk of the selected positions."""
    if outputs.logits is not None:
        return outputs.logits[chunk].float()
    assert outputs.transformed is not None
    assert outputs.decoder is not None
    return outputs.decoder.logits(outputs.transformed[chunk])
