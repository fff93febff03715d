"""Names of the hidden tensors that a term can request, and the sizes that decide whether a term fits."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

StateKind = Literal["embeddings", "hidden", "queries", "keys", "values"]


class StateKey(NamedTuple):
    """One tensor [B, S, D] of a forward pass. layer counts from 0.

    embeddings: the input of the first layer (layer 0).
    hidden: the output of layer `layer`. For the last layer, it is the encoder's output.
    queries, keys, values: the three projections of a layer's self-attention, before any dropout, with the heads concatenated.
    """

    kind: StateKind
    layer: int


@dataclass(frozen=True)
class EncoderShape:
    """An encoder's sizes, known from its config.json alone.

    dot_product_scores: attention scores are Q K^T / sqrt(d) and nothing else (no rotation, no relative positions). They can then be
    computed from queries and keys.
    """

    layers: int
    width: int
    heads: int
    family: str = "bert"
    dot_product_scores: bool = True

    @property
    def last_hidden(self) -> StateKey:
        """The key of the last layer's output."""
        return StateKey("hidden", self.layers - 1)
