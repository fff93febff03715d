"""A model as an ONNX graph with dynamic batch and length.

The graph holds no path and no source line of the machine that made it. It computes what the Hugging Face class computes in eval mode in
fp32. kd.export.quantise changes its precision afterwards.
"""

import contextlib
import gc
import io
import logging
import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from kd.errors import KdError
from kd.export.extra import onnx_module
from kd.export.onnx_model import OnnxModel
from kd.models.encoder import Encoder
from stillhouse.errors import one_line

Output = Literal["logits", "spans", "hidden"]
"""logits: one tensor of the model's head. spans: start_logits and end_logits. hidden: last_hidden_state [B, S, D]."""
OPSET = 20
OUTPUT_NAMES: dict[Output, list[str]] = {
    "logits": ["logits"],
    "spans": ["start_logits", "end_logits"],
    "hidden": ["last_hidden_state"],
}
SHAPES = ((1, 1), (1, 7), (3, 16), (2, 33), (2, 300))
"""(rows, tokens) of the inputs on which a graph is compared with torch. Longer ones than the model's positions are cut."""
OUTPUT_BYTES = 64_000_000
"""The most bytes of one batch of logits: 64 tokens of a vocabulary of 250,000."""


class Exported(nn.Module):
    """A model as the graph sees it. input_ids, attention_mask, token_type_ids: [B, S] int64."""

    def __init__(self, encoder: Encoder, output: Output) -> None:
        super().__init__()
        self.hf, self.base, self.output = encoder.hf, encoder.base, output
        table = encoder.family.token_type_embeddings
        self.inputs = ["input_ids", "attention_mask"]
        if table is not None and len(encoder.weight(table)) > 1:
            self.inputs.append("token_type_ids")
        self.max_positions, self.vocabulary = encoder.max_positions, encoder.vocabulary
        self.outputs = OUTPUT_NAMES[output]

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The outputs that `output` names, in order."""
        arguments = dict(zip(self.inputs, inputs, strict=True))
        if self.output == "hidden":
            hidden: Tensor = self.base(**arguments)[0]
            return hidden
        made: Any = self.hf(**arguments)
        if self.output == "spans":
            return made.start_logits, made.end_logits
        logits: Tensor = made.logits
        return logits

    def example(self, rows: int, tokens: int, seed: int = 0) -> tuple[Tensor, ...]:
        """Random inputs of this shape, all but the first row padded on the right by up to half."""
        generator = torch.Generator().manual_seed(seed)
        tokens = min(tokens, self.max_positions)
        ids = torch.randint(min(5, self.vocabulary - 1), self.vocabulary, (rows, tokens), generator=generator)
        lengths = torch.randint(max(1, tokens // 2), tokens + 1, (rows, 1), generator=generator)
        lengths[0] = tokens
        mask = (torch.arange(tokens)[None] < lengths).long()
        pad = self.hf.config.pad_token_id
        ids = torch.where(mask > 0, ids, 0 if pad is None else int(pad))
        return (ids, mask, torch.zeros_like(ids))[: len(self.inputs)]

    def most_rows(self, tokens: int) -> int:
        """The rows of so many tokens whose logits have at most OUTPUT_BYTES; at least 1."""
        masked_lm = self.output == "logits" and "MaskedLM" in type(self.hf).__name__
        return max(1, OUTPUT_BYTES // (4 * tokens * self.vocabulary)) if masked_lm else 1 << 30

    def arrays(self, *inputs: Tensor) -> list[NDArray[np.float32]]:
        """The outputs in fp32 as arrays, in eval mode."""
        training = self.training
        self.eval()
        with torch.no_grad():
            made = self(*inputs)
        self.train(training)
        return [value.float().numpy() for value in (made if isinstance(made, tuple) else (made,))]


@dataclass(frozen=True)
class Parity:
    """The largest difference between a graph's and torch's outputs at real tokens, and the largest output of torch."""

    largest_difference: float
    largest_output: float

    @property
    def relative(self) -> float:
        """The difference as a share of the largest output."""
        return self.largest_difference / max(self.largest_output, 1e-30)


def export_graph(exported: Exported, opset: int = OPSET) -> OnnxModel:
    """The model in fp32. Its weights are views of torch's. Raises KdError where torch cannot export it or gives another opset."""
    for name in ("onnx", "onnxscript"):
        onnx_module(name)
    exported = exported.eval()
    dynamic = torch.export.Dim.DYNAMIC
    inputs = exported.example(2, 7)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
            warnings.catch_warnings(),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            program: Any = torch.onnx.export(
                exported,
                inputs,
                dynamo=True,
                opset_version=opset,
                input_names=exported.inputs,
                output_names=exported.outputs,
                dynamic_shapes=(tuple({0: dynamic, 1: dynamic} for _ in inputs),),
                verbose=False,
            )
            values = program.model.graph.initializers
            weights = {name: value.const_value.numpy() for name, value in values.items()}
            values.clear()
            graph = OnnxModel(program.model_proto, weights)
            del program, values
    except Exception as error:  # the exporter raises classes of torch, onnxscript and Python
        raise KdError(f"{exported.hf.config.model_type}: expected a model that torch can export, got {one_line(error)}") from error
    finally:
        logging.disable(disabled)
    gc.collect()  # the exporter's objects refer to each other
    made = next(entry.version for entry in graph.proto.opset_import if entry.domain in ("", "ai.onnx"))
    if made != opset:
        raise KdError(f"opset: expected {opset}, got {made} from torch; choose opset 20 or 21")
    _remove_traces(graph.proto)
    _share_tables(graph)
    _name_axes(graph.proto, exported)
    return graph


def parity(exported: Exported, session: Any) -> Parity:
    """Compare a session of kd.export.runtime with torch on random inputs of SHAPES."""
    difference = largest = 0.0
    for seed, (rows, tokens) in enumerate(SHAPES):
        rows = min(rows, exported.most_rows(tokens))
        inputs = exported.example(rows, min(tokens, exported.most_rows(1)), seed)
        expected = exported.arrays(*inputs)
        got = session.run([value.numpy() for value in inputs])
        real = inputs[1].numpy().astype(bool)
        for one, other in zip(expected, got, strict=True):
            if one.ndim > 1 and one.shape[:2] == real.shape:
                one, other = one[real], other[real]
            difference = max(difference, float(np.abs(one - other).max()))
            largest = max(largest, float(np.abs(one).max()))
    return Parity(difference, largest)


def _remove_traces(graph: Any) -> None:
    """Remove the source lines and paths that the exporter leaves."""
    for item in (graph, graph.graph, *graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output):
        item.ClearField("doc_string")
        item.ClearField("metadata_props")
    del graph.graph.value_info[:]


def _share_tables(graph: OnnxModel) -> None:
    """Replace a decoder's copy of an embedding table by a transpose of the table: the exporter writes tied weights twice."""
    make_node = onnx_module("onnx.helper").make_node
    body, weights = graph.proto.graph, graph.weights
    tables = [name for node in body.node if node.op_type == "Gather" and (name := node.input[0]) in weights]
    for table in tables:
        values = weights[table]
        if values.ndim != 2 or values.shape[0] == values.shape[1]:
            continue
        copies = [name for name, one in weights.items() if one.shape == values.shape[::-1] and one.dtype == values.dtype]
        for copy in copies:
            if np.array_equal(weights[copy].T, values):
                del weights[copy]
                body.node.insert(0, make_node("Transpose", [table], [copy], perm=[1, 0]))


def _name_axes(graph: Any, exported: Exported) -> None:
    for value in (*graph.graph.input, *graph.graph.output):
        axes = value.type.tensor_type.shape.dim
        for axis, name in zip(axes, ("batch", "length"), strict=False):
            if axis.WhichOneof("value") == "dim_param":
                axis.dim_param = name
