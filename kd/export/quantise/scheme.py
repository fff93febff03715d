"""The precision that a graph is rewritten to, and what became of each weight."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from kd.export.onnx_model import OnnxModel

Linears = Literal["int8", "int8-static", "int4"]
Tables = Literal["fp32", "int8", "int4"]
Activations = Literal["token", "tensor"]
Range = tuple[float, float]
BLOCKS = (32, 128)
"""Numbers of 4-bit weights that may share a scale."""


@dataclass(frozen=True)
class Scheme:
    """The precision of linear maps and of embedding tables.

    activations: of `int8` alone; a scale for each token, or one for the whole tensor. block: weights that share a scale, at 4 bits.
    ranges: of `int8-static` alone; lowest and highest value of each linear map's input, by its name in the graph.
    """

    linears: Linears = "int8"
    tables: Tables = "int8"
    activations: Activations = "token"
    block: int = 32
    ranges: Mapping[str, Range] = field(default_factory=dict)

    def __post_init__(self) -> None:
        assert self.block in BLOCKS

    @property
    def four_bits(self) -> str:
        """The words for weights at 4 bits."""
        return f"int4, a scale for {self.block} weights"


@dataclass(frozen=True)
class Quantised:
    """A graph and the precision of each weight matrix in it, by the name that the weight has in the Hugging Face model."""

    graph: OnnxModel
    precisions: dict[str, str]
