"""Weights of an ONNX graph at 8 bits: linear maps with a scale per output, embedding tables with a scale per row.

Only operators of the ONNX standard are used. Activations of linear maps are quantised when the model runs, with one scale for a batch.
A decoder that shares the embedding table shares its 8-bit rows.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kd.export.extra import onnx_module
from kd.export.onnx_graph import Exported

Precision = Literal["fp32", "int8"]
TABLE_ROWS = 16
"""Tables with fewer rows stay in fp32: they are small, as token types are."""
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Quantised:
    """A graph and the precision of each weight matrix in it, by the name that the weight has in the Hugging Face model."""

    graph: Any
    precisions: dict[str, str]


def rows_to_int8(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """[R, D] -> int8 [R, D] and scales [R] fp32: row = int8 row x scale. A row of zeros has scale 1."""
    largest = np.abs(weight).max(axis=1)
    scales = np.where(largest > 0, largest / 127, 1).astype(np.float32)
    return np.clip(np.rint(weight / scales[:, None]), -127, 127).astype(np.int8), scales


def quantise(graph: Any, exported: Exported, keep: Callable[[str], bool] = lambda _name: False) -> Quantised:
    """A copy of the graph with linear maps and tables at 8 bits.

    keep: says of a weight's name in the Hugging Face model whether it stays in fp32. The last linear map of a task's head always does.
    """
    return _Rewriter(graph, exported, keep).run()


@dataclass
class _Rewriter:
    source: Any
    exported: Exported
    keep: Callable[[str], bool]
    nodes: list[Any] = field(default_factory=list)
    precisions: dict[str, str] = field(default_factory=dict)
    tables: dict[str, bool] = field(default_factory=dict)  # initializers that exist as int8 rows
    linears: dict[str, bool] = field(default_factory=dict)
    activations: dict[str, tuple[str, str, str]] = field(default_factory=dict)  # quantised, scale, zero point

    def run(self) -> Quantised:
        onnx = onnx_module("onnx")
        self.helper, self.numpy = onnx.helper, onnx_module("onnx.numpy_helper")
        self.types = onnx.TensorProto
        self.graph = type(self.source)()
        self.graph.CopyFrom(self.source)
        body = self.graph.graph
        self.initializers = {tensor.name: tensor for tensor in body.initializer}
        self.names = self._weight_names()
        self.transposed = {
            node.output[0]: node.input[0]
            for node in body.node
            if node.op_type == "Transpose" and node.input[0] in self.initializers and self._perm(node) == [1, 0]
        }
        gathered = {self.names[node.input[0]]: node.input[0] for node in body.node if node.op_type == "Gather" and self._is_table(node)}
        self.transposed |= {name: gathered[weight] for name, weight in self.names.items() if gathered.get(weight, name) != name}
        for node in list(body.node):
            if node.op_type == "Gather" and self._is_table(node):
                self._gather(node)
            elif (node.op_type == "MatMul" or _is_plain_gemm(node)) and self._is_linear(node.input[1]):
                self._linear(node)
            else:
                self.nodes.append(node)
        self._finish(body)
        return Quantised(self.graph, self.precisions)

    def _weight_names(self) -> Mapping[str, str]:
        """The name in the Hugging Face model of each matrix: the exporter transposes weights, and then forgets their names."""
        by_content: dict[tuple[Any, ...], str] = {}
        for name, weight in self.exported.hf.named_parameters():
            if weight.ndim == 2:
                array = weight.detach().float().numpy()
                for one in (array, array.T):
                    by_content.setdefault((one.shape, hash(np.ascontiguousarray(one).tobytes())), name)
        found = {}
        for name, tensor in self.initializers.items():
            if len(tensor.dims) == 2 and tensor.data_type == self.types.FLOAT:
                array = self.numpy.to_array(tensor)
                found[name] = by_content.get((array.shape, hash(np.ascontiguousarray(array).tobytes())), "")
        return {name: found_name for name, found_name in found.items() if found_name}

    def _is_table(self, node: Any) -> bool:
        name = node.input[0]
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        return axis == 0 and self._is_matrix(name, int(self.initializers[name].dims[0]) if name in self.initializers else 0)

    def _is_matrix(self, name: str, rows: int) -> bool:
        return name in self.names and rows >= TABLE_ROWS and not self._kept(self.names[name])

    def _is_linear(self, name: str) -> bool:
        name = self.transposed.get(name, name)
        return name in self.names and not self._kept(self.names[name])

    def _kept(self, weight: str) -> bool:
        if self.keep(weight):
            return True
        base = self.exported.base
        inside = any(parameter is self.exported.hf.get_parameter(weight) for parameter in base.parameters())
        if inside or self.exported.output == "hidden":
            return False
        labels = int(getattr(self.exported.hf.config, "num_labels", 0))
        rows = self.exported.hf.get_parameter(weight).shape[0]
        return rows == labels and rows != self.exported.vocabulary

    def _gather(self, node: Any) -> None:
        """Rows of int8, and their scales, by the same ids."""
        name, ids, output = node.input[0], node.input[1], node.output[0]
        self._make_table(name)
        self._add("Gather", [f"{name}_int8", ids], f"{output}_int8")
        self._add("Cast", [f"{output}_int8"], f"{output}_float", to=self.types.FLOAT)
        self._add("Gather", [f"{name}_scale", ids], f"{output}_row_scale")
        self._constant("last_axis", np.array([-1], np.int64))
        self._add("Unsqueeze", [f"{output}_row_scale", "last_axis"], f"{output}_scale")
        self._add("Mul", [f"{output}_float", f"{output}_scale"], output)

    def _make_table(self, name: str) -> None:
        if name not in self.tables:
            self.tables[name] = True
            values, scales = rows_to_int8(self.numpy.to_array(self.initializers[name]))
            self._constant(f"{name}_int8", values)
            self._constant(f"{name}_scale", scales)
            self.precisions[self.names[name]] = "int8, a scale per row"

    def _linear(self, node: Any) -> None:
        """x -> uint8 of x times int8 weights, in integers, times both scales. ONNX Runtime fuses this into one kernel."""
        x, weight, output = node.input[0], node.input[1], node.output[0]
        quantised, scale, zero = self._activation(x)
        matrix, scales = self._matrix(weight, transposed=node.op_type == "Gemm")
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
        product = f"{output}_product" if bias else output
        self._add("MatMulInteger", [quantised, matrix, zero], f"{output}_integer")
        self._add("Cast", [f"{output}_integer"], f"{output}_float", to=self.types.FLOAT)
        self._add("Mul", [scale, scales], f"{output}_scales")
        self._add("Mul", [f"{output}_float", f"{output}_scales"], product)
        if bias:
            self._add("Add", [product, bias], output)

    def _matrix(self, name: str, transposed: bool) -> tuple[str, str]:
        """Names of int8 [D, N] and of scales [N]. transposed: the initializer is [N, D]."""
        table = self.transposed.get(name)
        if table is not None:  # a decoder: it shares the rows of the embeddings
            self._make_table(table)
            if name not in self.linears:
                self.linears[name] = True
                self._add("Transpose", [f"{table}_int8"], f"{name}_int8", perm=[1, 0])
            return f"{name}_int8", f"{table}_scale"
        if name not in self.linears:
            self.linears[name] = True
            array = self.numpy.to_array(self.initializers[name])
            values, scales = rows_to_int8(array if transposed else array.T)
            self._constant(f"{name}_linear_int8", np.ascontiguousarray(values.T))
            self._constant(f"{name}_linear_scale", scales)
            self.precisions[self.names[name]] = "int8, a scale per output"
        return f"{name}_linear_int8", f"{name}_linear_scale"

    def _activation(self, name: str) -> tuple[str, str, str]:
        if name not in self.activations:
            made = (f"{name}_uint8", f"{name}_uint8_scale", f"{name}_uint8_zero")
            self.nodes.append(self.helper.make_node("DynamicQuantizeLinear", [name], list(made)))
            self.activations[name] = made
        return self.activations[name]

    def _finish(self, body: Any) -> None:
        used = {name for node in self.nodes for name in node.input} | {output.name for output in body.output}
        nodes = [node for node in self.nodes if node.op_type != "Transpose" or node.output[0] in used]
        used = {name for node in nodes for name in node.input} | {output.name for output in body.output}
        del body.node[:]
        body.node.extend(nodes)
        kept = [tensor for name, tensor in self.initializers.items() if name in used]
        del body.initializer[:]
        body.initializer.extend(kept)
        for name in self.names:
            if name in used:
                self.precisions.setdefault(self.names[name], "fp32")

    def _add(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(self.helper.make_node(operator, inputs, [output], **attributes))

    def _constant(self, name: str, value: NDArray[Any]) -> None:
        if name not in self.initializers:
            self.initializers[name] = self.numpy.from_array(value, name)

    def _perm(self, node: Any) -> list[int]:
        return next((list(attribute.ints) for attribute in node.attribute if attribute.name == "perm"), [])


def _is_plain_gemm(node: Any) -> bool:
    """True for x W^T + b, as the exporter writes a linear map of two axes."""
    if node.op_type != "Gemm":
        return False
    values = {attribute.name: attribute for attribute in node.attribute}
    scaled = any(name in values and values[name].f != 1 for name in ("alpha", "beta"))
    turned = {name: bool(name in values and values[name].i) for name in ("transA", "transB")}
    return not scaled and turned == {"transA": False, "transB": True}
