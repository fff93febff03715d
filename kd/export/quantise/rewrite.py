"""Rewrites a graph's linear maps and embedding tables to 8 or 4 bits.

A decoder that shares the embedding table shares its rows. The last linear map of a task's head, and small tables, stay in fp32.
"""

from collections.abc import Callable
from typing import Any

from kd.export.onnx_graph import Exported
from kd.export.onnx_model import OnnxModel
from kd.export.quantise.activations import ActivationQuantiser
from kd.export.quantise.editor import Editor
from kd.export.quantise.matrices import Matrices
from kd.export.quantise.scheme import Quantised, Scheme

Keep = Callable[[str], bool]


def keep_nothing(_name: str) -> bool:
    """The default of `keep`: no part stays in fp32 by name."""
    return False


def quantise(graph: OnnxModel, exported: Exported, scheme: Scheme, keep: Keep = keep_nothing) -> Quantised:
    """A new graph at the scheme's precision. keep: says of a weight's name in the Hugging Face model whether it stays in fp32."""
    return _Rewriter(graph, exported, scheme, keep).run()


def linear_inputs(graph: OnnxModel, exported: Exported, scheme: Scheme, keep: Keep = keep_nothing) -> list[str]:
    """The names in the graph of the inputs of linear maps that `quantise` would make 8-bit."""
    return _Rewriter(graph, exported, scheme, keep).inputs()


class _Rewriter:
    def __init__(self, graph: OnnxModel, exported: Exported, scheme: Scheme, keep: Keep) -> None:
        self.exported, self.scheme, self.keep = exported, scheme, keep
        self.editor = Editor(graph, exported)
        self.base = {id(weight) for weight in exported.base.parameters()}

    def run(self) -> Quantised:
        editor = self.editor
        matrices, activations = Matrices(editor, self.scheme), ActivationQuantiser(editor, self.scheme)
        for node in editor.source.graph.node:
            if self._is_quantised_table(node):
                matrices.gather(node)
            elif self._is_quantised_linear(node):
                four_bits = self._precision(node.input[1]) == "int4"
                has_bias = len(node.input) > 2  # of a Gemm
                output = f"{node.output[0]}_product" if has_bias else node.output[0]
                if four_bits:
                    matrices.product_at_4_bits(node, output)
                else:
                    matrices.product_at_8_bits(node, activations.quantise(node.input[0]), output)
                if has_bias:
                    editor.add("Add", [output, node.input[2]], node.output[0])
            else:
                editor.nodes.append(node)
        made = editor.result()
        for name, weight in editor.names.items():
            if name in editor.used:
                matrices.precisions.setdefault(weight, "fp32")
        return Quantised(made, matrices.precisions)

    def inputs(self) -> list[str]:
        """The inputs of 8-bit linear maps, each once."""
        nodes = (node for node in self.editor.source.graph.node if self._is_quantised_linear(node))
        return list(dict.fromkeys(node.input[0] for node in nodes if self._precision(node.input[1]) == "int8"))

    def _is_quantised_table(self, node: Any) -> bool:
        return self.editor.is_table(node) and self.scheme.tables != "fp32" and not self.keep(self.editor.names[node.input[0]])

    def _is_quantised_linear(self, node: Any) -> bool:
        if node.op_type != "MatMul" and not _is_plain_gemm(node):
            return False
        return self._precision(node.input[1]) != "fp32"

    def _precision(self, matrix: str) -> str:
        """fp32, int8 or int4 of a linear map's matrix."""
        weight = self.editor.weight_of(matrix)
        if weight is None or self.keep(weight):
            return "fp32"
        parameter = self.exported.hf.get_parameter(weight)
        inside = id(parameter) in self.base
        tied = self.editor.shared.get(matrix) in self.editor.tables
        if tied or (not inside and parameter.shape[0] == self.exported.vocabulary):
            return self.scheme.tables  # a vocabulary head
        labels = int(getattr(self.exported.hf.config, "num_labels", 0))
        if not inside and self.exported.output != "hidden" and parameter.shape[0] == labels:
            return "fp32"
        return "int4" if self.scheme.linears == "int4" else "int8"


def _is_plain_gemm(node: Any) -> bool:
    """True for x W^T + b, as the exporter writes a linear map of two axes."""
    if node.op_type != "Gemm":
        return False
    values = {attribute.name: attribute for attribute in node.attribute}
    scaled = any(name in values and values[name].f != 1 for name in ("alpha", "beta"))
    turned = {name: bool(name in values and values[name].i) for name in ("transA", "transB")}
    return not scaled and turned == {"transA": False, "transB": True}
