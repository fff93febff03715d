"""What a term may ask of an encoder besides logits: the states of its layers, by name, and the sizes that decide whether they fit."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from kd.models.encoder import Encoder

Part = Literal["embeddings", "hidden", "queries", "keys", "values"]
LAST = -1


class State(NamedTuple):
    """One tensor [B, S, D] of a forward pass. layer counts from 0, from the end where negative; embeddings are layer 0's input.

    embeddings, hidden: what enters the first layer, what leaves layer `layer` (of the last one: the encoder's output).
    queries, keys, values: the three projections of a layer's self-attention, all heads side by side, before any dropout.
    """

    part: Part
    layer: int

    def at(self, layers: int) -> int:
        """The layer's number from 0 in an encoder of so many layers."""
        return self.layer % layers


EMBEDDINGS = State("embeddings", 0)
LAST_HIDDEN = State("hidden", LAST)


@dataclass(frozen=True)
class Shape:
    """An encoder's sizes, known from its config.json alone.

    dot_product_scores: whether attention scores are Q K^T / sqrt(d) and nothing else (no rotation, no relative positions), so that they
    can be had from queries and keys.
    """

    layers: int
    width: int
    heads: int
    family: str = "bert"
    dot_product_scores: bool = True

    @classmethod
    def of(cls, encoder: Encoder) -> "Shape":
        """The shape of an encoder, also of one on the meta device."""
        return cls(encoder.layers, encoder.width, encoder.heads, encoder.family.name, encoder.family.scores == "scaled_dot")
