"""A model as an ONNX graph at a precision, or in another dtype, with a session that runs it and a record of what was done."""

import argparse
from dataclasses import asdict, replace
from typing import Any

import torch

from kd.export.onnx_graph import parity
from kd.export.quantise.calibration import Calibration
from kd.export.runtime import TorchSession
from launcher.deployment.conversion.batches import inputs_of
from launcher.deployment.conversion.data import ExportData
from launcher.deployment.conversion.graph import Converted, Graph
from launcher.deployment.conversion.options import scheme_of
from launcher.deployment.conversion.parts import weights_of
from launcher.deployment.conversion.quality import Comparison
from launcher.deployment.conversion.search import search
from launcher.deployment.models import DeployedModel, open_model
from launcher.errors import LaunchError

TORCH = {"fp32": "float32", "bf16": "bfloat16"}


def to_onnx(
    model: DeployedModel, graph: Graph, data: ExportData, comparison: Comparison | None, arguments: argparse.Namespace
) -> Converted:
    """A graph at the precision of the command line."""
    precision = arguments.precision
    if precision == "fp32":
        parts = {name: "fp32" for name, weight in model.encoder.hf.named_parameters() if weight.ndim == 2}
        return graph.converted(precision, graph.onnx, graph.session, parts, {})
    kept = kept_weights(model, arguments)
    scheme = scheme_of(arguments)
    more: dict[str, Any] = {"activations": ACTIVATIONS[scheme.activations if scheme.linears == "int8" else scheme.linears]}
    if precision == "auto":
        if comparison is None:
            raise LaunchError("auto: expected --task-config or --shards to measure the loss on, got neither; give one")
        found = search(graph, scheme, comparison, kept, arguments.max_drop)
        return graph.converted("int8", found.onnx, found.session, found.precisions, more | {"search": found.record})
    if precision == "int8-static":
        batches = data.calibration(model)
        calibration = Calibration(graph.onnx, model.exported, scheme, kept.__contains__, graph.scratch)
        for batch in batches:
            calibration.observe(inputs_of(graph.session, batch))
        scheme = replace(scheme, ranges=calibration.ranges)
        more["calibration_rows"] = sum(len(batch.input_ids) for batch in batches)
    return graph.converted(precision, *graph.at(scheme, kept), more)


ACTIVATIONS = {
    "token": "int8, a scale for each token",
    "tensor": "int8, a scale for the whole batch",
    "int8-static": "int8, scales from calibration",
    "int4": "int8, a scale for each block of a token",
}
"""The inputs of linear maps, by precision or by --activations."""


def kept_weights(model: DeployedModel, arguments: argparse.Namespace) -> frozenset[str]:
    """The weights of --keep-fp32. Raises LaunchError for a part that the model does not have."""
    return frozenset().union(*(weights_of(model.encoder, part) for part in arguments.keep_fp32))


def to_safetensors(model: DeployedModel, arguments: argparse.Namespace) -> Converted:
    """A Hugging Face model in fp32 or bf16."""
    dtype = getattr(torch, TORCH[arguments.precision])
    other = open_model(arguments.model, dtype)
    session, original = TorchSession(other.exported), TorchSession(model.exported)
    near = parity(model.exported, session)
    numbers = sum(weight.numel() for weight in model.encoder.hf.parameters())
    record = {
        "model_format": "safetensors",
        "precision": arguments.precision,
        "inputs": session.inputs,
        "outputs": session.outputs,
        "parity": {"inputs": "random ids", arguments.precision: asdict(near)},
    }
    return Converted(None, session, original, record, numbers * dtype.itemsize, numbers * 4)
