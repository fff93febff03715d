"""Sizes of a model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kd.models.encoder import Encoder


@dataclass(frozen=True)
class Sizes:
    """A model's size: weights (tied ones once), those that train, and bytes in the dtype they have now."""

    parameters: int
    trainable: int
    bytes: int


def model_sizes(encoder: Encoder) -> Sizes:
    """Sizes of a model."""
    weights = list(encoder.parameters())
    return Sizes(
        parameters=sum(weight.numel() for weight in weights),
        trainable=sum(weight.numel() for weight in weights if weight.requires_grad),
        bytes=sum(weight.numel() * weight.element_size() for weight in weights),
    )
