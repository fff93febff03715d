"""Inputs of 8-bit linear maps as uint8: a scale for each token, one for the whole tensor, or one from calibration.

A tensor's scale depends on every row of the batch and on its padding. A token's scale depends on the token alone.
"""

from dataclasses import dataclass

import numpy as np

from kd.export.quantise.editor import Editor
from kd.export.quantise.scheme import Range, Scheme

MIDDLE = 128
TINY = 1e-30
UINT8 = 2  # TensorProto.UINT8


@dataclass(frozen=True)
class Activation:
    """Names in the graph: values = (uint8 - zero) x scale. by_token: scale is [..., 1], and may not be multiplied with the weights' scales.

    ONNX Runtime fuses Cast, Mul(x, Mul(scale, scales)) into one kernel, which reads the first scale of the tensor alone.
    """

    uint8: str
    scale: str
    zero: str
    by_token: bool


def scale_and_zero(low: float, high: float) -> tuple[np.float32, np.uint8]:
    """Scale and zero point of uint8 for values from low to high. 0 is exact."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = np.float32(max((high - low) / 255, TINY))
    return scale, np.uint8(np.clip(round(-low / float(scale)), 0, 255))


class ActivationQuantiser:
    """Quantises each tensor once, for all linear maps that read it."""

    def __init__(self, editor: Editor, scheme: Scheme) -> None:
        self._editor, self._scheme = editor, scheme
        self._made: dict[str, Activation] = {}

    def quantise(self, name: str) -> Activation:
        """The tensor of this name as uint8."""
        if name not in self._made:
            if self._scheme.linears == "int8-static" and name in self._scheme.ranges:
                self._made[name] = self._fixed(name, self._scheme.ranges[name])
            else:
                self._made[name] = self._by_tensor(name) if self._scheme.activations == "tensor" else self._by_token(name)
        return self._made[name]

    def _by_tensor(self, name: str) -> Activation:
        made = Activation(f"{name}_uint8", f"{name}_uint8_scale", f"{name}_uint8_zero", by_token=False)
        self._editor.add_many("DynamicQuantizeLinear", [name], [made.uint8, made.scale, made.zero])
        return made

    def _by_token(self, name: str) -> Activation:
        """QuantizeLinear takes a scale for each row of a matrix. So the tensor is a matrix of tokens meanwhile."""
        editor = self._editor
        last = editor.constant("last_axis", np.array([-1], np.int64))
        magnitude = editor.add("Abs", [name], f"{name}_magnitude")
        largest = editor.add("ReduceMax", [magnitude, last], f"{name}_largest", keepdims=1)
        share = editor.constant("one_127th", np.array(1 / 127, np.float32))
        scaled = editor.add("Mul", [largest, share], f"{name}_step")
        tiny = editor.constant("smallest_scale", np.array(TINY, np.float32))
        scale = editor.add("Max", [scaled, tiny], f"{name}_uint8_scale")
        scales = editor.add("Reshape", [scale, last], f"{name}_token_scales")
        zero = editor.constant("uint8_zero", np.array(MIDDLE, np.uint8))
        zeros = editor.add("Expand", [zero, editor.add("Shape", [scales], f"{name}_tokens")], f"{name}_token_zeros")
        shape = editor.add("Shape", [name], f"{name}_shape")
        width = editor.add("Shape", [name], f"{name}_width", start=-1)
        matrix = editor.add("Concat", [last, width], f"{name}_matrix_shape", axis=0)
        flat = editor.add("Reshape", [name, matrix], f"{name}_matrix")
        quantised = editor.add("QuantizeLinear", [flat, scales, zeros], f"{name}_matrix_uint8", axis=0)
        return Activation(editor.add("Reshape", [quantised, shape], f"{name}_uint8"), scale, zero, by_token=True)

    def _fixed(self, name: str, limits: Range) -> Activation:
        editor = self._editor
        value, point = scale_and_zero(*limits)
        scale = editor.constant(f"{name}_uint8_scale", np.array(value, np.float32))
        zero = editor.constant(f"{name}_uint8_zero", np.array(point, np.uint8))
        return Activation(editor.add("QuantizeLinear", [name, scale, zero], f"{name}_uint8"), scale, zero, by_token=False)
