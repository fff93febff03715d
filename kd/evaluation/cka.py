"""Similarity of the layers of two encoders: linear CKA between their hidden states on the same tokens.

Source: Kornblith et al. 2019, arXiv:1905.00414, equation 3 with linear kernels. For centred features X [n, D] and Y [n, D'] it is
||Y^T X||^2 / (||X^T X|| ||Y^T Y||) with Frobenius norms. The range is 0 .. 1. Rotation and scale do not change it, and widths may differ.
"""

from collections.abc import Iterable

import torch
from torch import Tensor

from kd.batch import Batch
from kd.errors import KdError
from kd.models.capture import capture
from kd.models.encoder import Encoder
from kd.models.states import StateKey


def linear_cka(x: Tensor, y: Tensor) -> float:
    """Linear CKA of features [n, D] and [n, D'] of the same n tokens, 0 .. 1; 0 where one of them does not vary."""
    x, y = (features.double() - features.double().mean(0) for features in (x, y))
    scale = float((x.T @ x).norm() * (y.T @ y).norm())
    return float((y.T @ x).square().sum()) / scale if scale > 0 else 0.0


def layer_similarity(student: Encoder, teacher: Encoder, batches: Iterable[Batch], tokens: int) -> Tensor:
    """[S, T] fp64: linear CKA of every student layer with every teacher layer, on the first so many tokens that are not padding.

    Deterministic: eval mode, no dropout. Raises KdError when the batches hold fewer than two tokens.
    """
    kept: dict[tuple[str, int], list[Tensor]] = {}
    left = tokens
    for batch in batches:
        if left <= 0:
            break
        real = batch.real
        for name, encoder in (("student", student), ("teacher", teacher)):
            on_device = batch.to(encoder.decoder_weight.device)
            for layer, states in enumerate(_hidden(encoder, on_device)):
                kept.setdefault((name, layer), []).append(states[on_device.real][:left].float().cpu())
        left -= int(real.sum())
    if tokens - left < 2:
        raise KdError("layer_map: expected a sample of at least 2 tokens for cka, got fewer; use more windows")
    features = {key: torch.cat(parts) for key, parts in kept.items()}
    rows = [[linear_cka(features["student", s], features["teacher", t]) for t in range(teacher.layers)] for s in range(student.layers)]
    return torch.tensor(rows, dtype=torch.float64)


def _hidden(encoder: Encoder, batch: Batch) -> list[Tensor]:
    """The hidden states [B, S, D] of every layer."""
    with torch.no_grad(), encoder.evaluating():
        states = capture(encoder, batch, frozenset(StateKey("hidden", layer) for layer in range(encoder.layers))).states
    return [states[StateKey("hidden", layer)] for layer in range(encoder.layers)]
