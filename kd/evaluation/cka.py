"""Similarity of the layers of two encoders: linear CKA between their hidden states on the same tokens.

`layer_similarity` reads all tokens at once. `MinibatchCka` adds up minibatches of tokens and needs no memory between them.

Source: Kornblith et al. 2019, arXiv:1905.00414, equation 3 with linear kernels. For centred features X [n, D] and Y [n, D'] it is
||Y^T X||^2 / (||X^T X|| ||Y^T Y||) with Frobenius norms. The range is 0 .. 1. Rotation and scale do not change it, and widths may differ.
"""

from collections.abc import Iterable, Sequence

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


class MinibatchCka:
    """Linear CKA of every layer of one encoder with every layer of another, added up over minibatches of tokens.

    Source: Nguyen, Raghu and Kornblith 2021, arXiv:2010.15327, equations 3 and 4: the unbiased HSIC of Song et al. 2012 for K = X X^T and
    L = Y Y^T without their diagonals, averaged over minibatches. So few tokens do not look similar by chance. Unrelated layers give values
    around 0, also slightly below it.
    """

    def __init__(self) -> None:
        self._sums: Tensor | None = None
        self._first = 0

    def add(self, first: Sequence[Tensor], second: Sequence[Tensor]) -> None:
        """Take a minibatch into account. Features [n, D] of each layer, of the same n tokens, n at least 4."""
        kernels = torch.stack([_kernel(features) for features in (*first, *second)])
        self._first = len(first)
        sums = _hsic(kernels)
        self._sums = sums if self._sums is None else self._sums + sums

    @property
    def values(self) -> Tensor:
        """[S, T] fp64 on the CPU: 1 for layers that are equal up to rotation and scale. 0 where a layer does not vary."""
        assert self._sums is not None
        own = self._sums.diagonal().clamp(min=0)
        scale = (own[: self._first, None] * own[None, self._first :]).sqrt()
        cross = self._sums[: self._first, self._first :]
        return torch.where(scale > 0, cross / scale.clamp(min=1e-300), 0.0).cpu()


def _kernel(features: Tensor) -> Tensor:
    """[n, n] fp64: inner products of the tokens, without the diagonal. Features are centred, which changes no value but rounding."""
    centred = features.double() - features.double().mean(0)
    return (centred @ centred.T).fill_diagonal_(0.0)


def _hsic(kernels: Tensor) -> Tensor:
    """[E, n, n] -> [E, E]: the unbiased HSIC of each pair (Song et al. 2012, equation 5)."""
    n = kernels.shape[1]
    flat, rows = kernels.flatten(1), kernels.sum(2)
    totals = rows.sum(1)
    traces = flat @ flat.T
    whole = traces + totals[:, None] * totals[None, :] / ((n - 1) * (n - 2)) - 2.0 / (n - 2) * (rows @ rows.T)
    return whole / (n * (n - 3))
