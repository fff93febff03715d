"""A graph under change: its matrices by the names of the Hugging Face model, and the nodes that take the place of others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from kd.export.extra import onnx_module
from kd.export.onnx_graph import Exported
from kd.export.onnx_model import OnnxModel

TABLE_ROWS = 16
"""Tables with fewer rows stay in fp32: they are small, as token types are."""
RUNTIME = "com.microsoft"
"""The domain of ONNX Runtime's own operators."""
SAMPLE = 64
FLOAT = 1  # TensorProto.FLOAT
CHUNK = 1 << 22
"""Numbers that are compared at a time, which bounds the memory."""


class Editor:
    """A graph whose nodes are appended one by one, and whose initializers are the source's and new ones. The source stays as it is.

    names: initializer -> weight of the Hugging Face model, of each matrix. shared: output of a Transpose, or second copy of a table,
    -> the initializer with rows [N, D] that it repeats. tables: the initializers that are gathered from.
    """

    def __init__(self, source: OnnxModel, exported: Exported) -> None:
        self.source, self.exported = source.proto, exported
        self._helper = onnx_module("onnx.helper")
        self.nodes: list[Any] = []
        self.initializers = dict(source.weights)
        self.names = self._weight_names()
        body = self.source.graph.node
        self.shared = {
            node.output[0]: node.input[0]
            for node in body
            if node.op_type == "Transpose" and node.input[0] in self.initializers and _integers(node, "perm") == [1, 0]
        }
        self.tables = {node.input[0] for node in body if self.is_table(node)}
        by_weight = {self.names[name]: name for name in self.tables}
        self.shared |= {name: by_weight[weight] for name, weight in self.names.items() if by_weight.get(weight, name) != name}

    def is_table(self, node: Any) -> bool:
        """True for a Gather of the rows of a weight matrix."""
        if node.op_type != "Gather" or node.input[0] not in self.names:
            return False
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 0)
        return axis == 0 and len(self.initializers[node.input[0]]) >= TABLE_ROWS

    def weight_of(self, name: str) -> str | None:
        """The weight of the Hugging Face model that a matrix of the graph holds, transposed or not."""
        return self.names.get(self.shared.get(name, name))

    def add(self, operator: str, inputs: list[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Append a node with one output, and return the output's name."""
        self.add_many(operator, inputs, [output], domain, **attributes)
        return output

    def add_many(self, operator: str, inputs: list[str], outputs: list[str], domain: str = "", **attributes: Any) -> None:
        """Append a node."""
        self.nodes.append(self._helper.make_node(operator, inputs, outputs, domain=domain, **attributes))

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Make an initializer, once, and return its name."""
        if name not in self.initializers:
            self.initializers[name] = np.ascontiguousarray(value)
        return name

    def result(self) -> OnnxModel:
        """The new model, without transposes and initializers that no node uses."""
        source, outputs = self.source.graph, {output.name for output in self.source.graph.output}
        used = {name for node in self.nodes for name in node.input} | outputs
        nodes = [node for node in self.nodes if node.op_type != "Transpose" or node.output[0] in used]
        self.used = {name for node in nodes for name in node.input} | outputs
        weights = {name: array for name, array in self.initializers.items() if name in self.used}
        graph = self._helper.make_graph(nodes, source.name, source.input, source.output)
        imports = [self._helper.make_opsetid(entry.domain, entry.version) for entry in self.source.opset_import]
        if any(node.domain == RUNTIME for node in nodes):
            imports.append(self._helper.make_opsetid(RUNTIME, 1))
        facts = {"functions": self.source.functions, "ir_version": self.source.ir_version, "producer_name": "pytorch"}
        return OnnxModel(self._helper.make_model(graph, opset_imports=imports, **facts), weights)

    def _weight_names(self) -> dict[str, str]:
        """The exporter transposes weights, and then forgets their names. So matrices are found by their values."""
        weights: dict[tuple[int, ...], list[tuple[str, NDArray[Any]]]] = {}
        for name, weight in self.exported.hf.named_parameters():
            if weight.ndim == 2:
                array = weight.detach().float().numpy()
                for one in (array, array.T) if array.shape[0] != array.shape[1] else (array,):
                    weights.setdefault(one.shape, []).append((name, one))
        names = {}
        for name, array in self.initializers.items():
            if array.ndim == 2 and array.dtype == np.float32:
                turned = (array, array.T) if array.shape[0] == array.shape[1] else (array,)
                candidates = weights.get(array.shape, [])
                same = (weight for weight, values in candidates if any(_same(one, values) for one in turned))
                if weight := next(same, None):
                    names[name] = weight
        return names


def _same(one: NDArray[Any], other: NDArray[Any]) -> bool:
    """True for equal matrices. The same memory needs no comparison, and a few numbers are compared first."""
    if one.ctypes.data == other.ctypes.data and one.strides == other.strides:
        return True
    rows, columns = (np.linspace(0, length - 1, min(SAMPLE, length)).astype(int) for length in one.shape)
    count = min(len(rows), len(columns))
    if not np.array_equal(one[rows[:count], columns[:count]], other[rows[:count], columns[:count]]):
        return False
    step = max(1, CHUNK // one.shape[1])
    return all(np.array_equal(one[begin : begin + step], other[begin : begin + step]) for begin in range(0, len(one), step))


def _integers(node: Any, name: str) -> list[int]:
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == name), [])
