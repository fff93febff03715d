"""Weight matrices at 8 and 4 bits, and the nodes that gather their rows or multiply by them.

8 bits need operators of the ONNX standard only. 4 bits need GatherBlockQuantized and MatMulNBits of ONNX Runtime.
"""

from typing import Any

import numpy as np

from kd.export.quantise.activations import Activation
from kd.export.quantise.editor import FLOAT, RUNTIME, Editor
from kd.export.quantise.rounding import blocks_to_int4, rows_to_int8
from kd.export.quantise.scheme import Scheme

INT8_ARITHMETIC = 4
"""The accuracy_level of MatMulNBits that multiplies in int8, with a scale for each block of a token. The default, fp32, is slower."""


class Matrices:
    """Quantises each matrix once. precisions: by the weight's name in the Hugging Face model."""

    def __init__(self, editor: Editor, scheme: Scheme) -> None:
        self._editor, self._scheme = editor, scheme
        self.precisions: dict[str, str] = {}
        self._transposed: set[str] = set()

    def gather(self, node: Any) -> None:
        """Rows of a table by ids, in fp32."""
        name, ids, output = node.input[0], node.input[1], node.output[0]
        editor = self._editor
        if self._scheme.tables == "int4":
            self._four_bit_rows(name)
            width, block = editor.initializers[name].shape[1], self._scheme.block
            padded = output if width % block == 0 else f"{output}_padded"
            sizes = {"bits": 4, "block_size": block, "gather_axis": 0, "quantize_axis": 1}
            editor.add("GatherBlockQuantized", [f"{name}_int4", ids, f"{name}_int4_scales"], padded, domain=RUNTIME, **sizes)
            if padded != output:
                ends = [editor.constant(f"{name}_{key}", np.array([value], np.int64)) for key, value in (("begin", 0), ("width", width))]
                editor.add("Slice", [padded, *ends, editor.constant("last_axis", np.array([-1], np.int64))], output)
            return
        self._eight_bit_rows(name)
        values = editor.add("Cast", [editor.add("Gather", [f"{name}_int8", ids], f"{output}_int8")], f"{output}_float", to=FLOAT)
        scales = editor.add("Gather", [f"{name}_scale", ids], f"{output}_row_scale")
        last = editor.constant("last_axis", np.array([-1], np.int64))
        editor.add("Mul", [values, editor.add("Unsqueeze", [scales, last], f"{output}_scale")], output)

    def product_at_8_bits(self, node: Any, x: Activation, output: str) -> None:
        """x times the node's matrix in integers, times both scales."""
        editor = self._editor
        matrix, scales = self._eight_bit_columns(node)
        integers = editor.add("MatMulInteger", [x.uint8, matrix, x.zero], f"{output}_integer")
        product = editor.add("Cast", [integers], f"{output}_float", to=FLOAT)
        if x.by_token:
            editor.add("Mul", [editor.add("Mul", [product, scales], f"{output}_by_output"), x.scale], output)
        else:  # in this order ONNX Runtime makes it one kernel
            editor.add("Mul", [product, editor.add("Mul", [x.scale, scales], f"{output}_scales")], output)

    def product_at_4_bits(self, node: Any, output: str) -> None:
        """x times the node's matrix. ONNX Runtime quantises x by blocks of each token."""
        editor, block = self._editor, self._scheme.block
        shared = editor.shared.get(node.input[1])
        name = shared or node.input[1]
        rows, width = editor.initializers[name].shape
        if shared is not None:
            self._four_bit_rows(name)
            matrix = f"{name}_int4_blocks"
            if name not in self._transposed:
                self._transposed.add(name)
                shape = editor.constant(f"{matrix}_shape", np.array([rows, -(-width // block), block // 2], np.int64))
                editor.add("Reshape", [f"{name}_int4", shape], matrix)
        else:
            if node.op_type == "MatMul":
                rows, width = width, rows
            matrix = f"{name}_int4"
            if matrix not in editor.initializers:
                array = editor.initializers[name]
                values, scales = blocks_to_int4(array.T if node.op_type == "MatMul" else array, block)
                editor.constant(matrix, values)
                editor.constant(f"{name}_int4_scales", scales)
                self.precisions[editor.names[name]] = self._scheme.four_bits
        sizes = {"bits": 4, "block_size": block, "K": width, "N": rows, "accuracy_level": INT8_ARITHMETIC}
        editor.add("MatMulNBits", [node.input[0], matrix, f"{name}_int4_scales"], output, domain=RUNTIME, **sizes)

    def _eight_bit_rows(self, name: str) -> None:
        if f"{name}_int8" not in self._editor.initializers:
            values, scales = rows_to_int8(self._editor.initializers[name])
            self._editor.constant(f"{name}_int8", values)
            self._editor.constant(f"{name}_scale", scales)
            self.precisions[self._editor.names[name]] = "int8, a scale per row"

    def _four_bit_rows(self, name: str) -> None:
        if f"{name}_int4" not in self._editor.initializers:
            values, scales = blocks_to_int4(self._editor.initializers[name], self._scheme.block)
            self._editor.constant(f"{name}_int4", values.reshape(len(values), -1))
            self._editor.constant(f"{name}_int4_scales", scales)
            self.precisions[self._editor.names[name]] = self._scheme.four_bits

    def _eight_bit_columns(self, node: Any) -> tuple[str, str]:
        """Names of int8 [D, N] and of scales [N]. The matrix of a Gemm is [N, D]."""
        editor, name = self._editor, node.input[1]
        table = editor.shared.get(name)
        if table is not None:  # a decoder: it shares the rows of the embeddings
            self._eight_bit_rows(table)
            if name not in self._transposed:
                self._transposed.add(name)
                editor.add("Transpose", [f"{table}_int8"], f"{name}_int8_columns", perm=[1, 0])
            return f"{name}_int8_columns", f"{table}_scale"
        matrix, scale = f"{name}_linear_int8", f"{name}_linear_scale"
        if matrix not in editor.initializers:
            array = editor.initializers[name]
            values, scales = rows_to_int8(array if node.op_type == "Gemm" else array.T)
            editor.constant(matrix, values.T)
            editor.constant(scale, scales)
            self.precisions[editor.names[name]] = "int8, a scale per output"
        return matrix, scale
