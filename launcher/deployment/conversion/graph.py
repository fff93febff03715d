"""A model's fp32 graph, checked against torch, and the same model at other precisions."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from kd.export.onnx_graph import export_graph, parity
from kd.export.onnx_model import OnnxModel
from kd.export.quantise.rewrite import quantise
from kd.export.quantise.scheme import Scheme
from kd.export.runtime import MAPPED_BYTES, AnySession, Session
from launcher.deployment.models import DeployedModel
from launcher.errors import LaunchError

FP32_PARITY = 1e-4
"""The largest difference of an fp32 graph's outputs, as a share of the largest output. Sums in another order give about 1e-6."""


@dataclass(frozen=True)
class Converted:
    """A model in its new form. onnx: None for safetensors. bytes: of its files."""

    onnx: OnnxModel | None
    session: AnySession
    fp32: AnySession
    record: dict[str, Any]
    bytes: int
    original_bytes: int


class Graph:
    """A model's fp32 graph, with a session that runs it. It is the start of each precision."""

    def __init__(self, model: DeployedModel, opset: int, scratch: Path | None = None) -> None:
        """scratch: a folder for temporary files of large models. Raises LaunchError for a graph that is not within FP32_PARITY of torch."""
        self.model, self.opset, self.scratch = model, opset, scratch
        self.onnx = export_graph(model.exported, opset)
        self.bytes = self.onnx.size
        self.session = self._session(self.onnx)
        self.parity = parity(model.exported, self.session)
        if self.parity.relative > FP32_PARITY:
            got = f"got {self.parity.relative:.1e}; report this model"
            raise LaunchError(f"{model.path}: expected the fp32 graph within {FP32_PARITY:g} of torch, {got}")

    def at(self, scheme: Scheme, kept: frozenset[str] = frozenset()) -> tuple[OnnxModel, Session, dict[str, str]]:
        """The model, a session, and the precision of each weight. kept: weights that stay in fp32."""
        made = quantise(self.onnx, self.model.exported, scheme, kept.__contains__)
        return made.graph, self._session(made.graph), made.precisions

    def _session(self, onnx: OnnxModel) -> Session:
        """Sessions of a large model give the memory of a run back."""
        return Session(onnx, threads=1, scratch=self.scratch, arena=self.bytes < MAPPED_BYTES)

    def converted(self, precision: str, onnx: OnnxModel, session: Session, parts: dict[str, str], more: dict[str, Any]) -> Converted:
        """This form with its record. more: added to the record."""
        near = self.parity if session is self.session else parity(self.model.exported, session)
        record = {
            "model_format": "onnx",
            "precision": precision,
            "precision_by_part": parts,
            **more,
            "opset": self.opset,
            "inputs": session.inputs,
            "outputs": session.outputs,
            "parity": {"inputs": "random ids", "fp32": asdict(self.parity), precision: asdict(near)},
        }
        return Converted(onnx, session, self.session, record, onnx.size, self.bytes)
