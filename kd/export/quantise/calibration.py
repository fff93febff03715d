"""Ranges of the inputs of linear maps on real texts, for 8-bit activations whose scales are fixed."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kd.export.extra import onnx_module
from kd.export.onnx_graph import Exported
from kd.export.onnx_model import OnnxModel
from kd.export.quantise.editor import FLOAT
from kd.export.quantise.rewrite import Keep, keep_nothing, linear_inputs
from kd.export.quantise.scheme import Range, Scheme
from kd.export.runtime import Session

MASK = "attention_mask"


class Calibration:
    """Runs the fp32 graph on texts and keeps the lowest and highest value of each linear map's input at real tokens."""

    def __init__(
        self, graph: OnnxModel, exported: Exported, scheme: Scheme, keep: Keep = keep_nothing, scratch: Path | None = None
    ) -> None:
        """scratch: a folder for a large model's temporary file."""
        self._names = linear_inputs(graph, exported, scheme, keep)
        wider = type(graph.proto)()
        wider.CopyFrom(graph.proto)
        known = {value.name: value for value in (*graph.proto.graph.input, *graph.proto.graph.output)}
        make = onnx_module("onnx.helper").make_tensor_value_info
        del wider.graph.output[:]  # logits of a large vocabulary are not needed
        wider.graph.output.extend(known.get(name) or make(name, FLOAT, None) for name in self._names)
        self._session = Session(OnnxModel(wider, graph.weights), threads=1, scratch=scratch)
        self.inputs = self._session.inputs
        self.ranges: dict[str, Range] = {}
        """By the input's name in the graph."""

    def observe(self, arrays: Sequence[NDArray[np.int64]]) -> None:
        """One batch. arrays: [B, S] int64, in the order of `inputs`. Padding is left out."""
        made = dict(zip(self._session.outputs, self._session.run(arrays), strict=True))
        real = arrays[self.inputs.index(MASK)] > 0
        for name in self._names:
            values = made[name]
            values = values[real] if values.shape[:2] == real.shape else values
            low, high = self.ranges.get(name, (np.inf, -np.inf))
            self.ranges[name] = min(low, float(values.min())), max(high, float(values.max()))
