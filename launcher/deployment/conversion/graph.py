"""A model's fp32 graph, checked against torch, and the same model at other precisions."""

from dataclasses import asdict, dataclass
from typing import Any

from kd.export.onnx_graph import export_graph, parity
from kd.export.quantise.rewrite import quantise
from kd.export.quantise.scheme import Scheme
from kd.export.runtime import AnySession, Session
from launcher.deployment.models import DeployedModel
from launcher.errors import LaunchError

FP32_PARITY = 1e-4
"""The largest difference of an fp32 graph's outputs, as a share of the largest output. Sums in another order give about 1e-6."""


@dataclass(frozen=True)
class Converted:
    """A model in its new form. content: the bytes of model.onnx; None for safetensors."""

    content: bytes | None
    session: AnySession
    fp32: AnySession
    record: dict[str, Any]
    bytes: int
    original_bytes: int


class Graph:
    """A model's fp32 graph, with a session that runs it. It is the start of each precision."""

    def __init__(self, model: DeployedModel, opset: int) -> None:
        """Raises LaunchError for a graph that does not compute what torch computes."""
        self.model, self.opset = model, opset
        self.proto = export_graph(model.exported, opset)
        content = self.content
        self.bytes, self.session = len(content), Session(content, threads=1)
        del content
        self.parity = parity(model.exported, self.session)
        if self.parity.relative > FP32_PARITY:
            got = f"got {self.parity.relative:.1e}; report this model"
            raise LaunchError(f"{model.path}: expected the fp32 graph within {FP32_PARITY:g} of torch, {got}")

    @property
    def content(self) -> bytes:
        """The fp32 file. It is made anew each time, for it may have a gigabyte."""
        content: bytes = self.proto.SerializeToString()
        return content

    def at(self, scheme: Scheme, kept: frozenset[str] = frozenset()) -> tuple[bytes, Session, dict[str, str]]:
        """The file, a session, and the precision of each weight. kept: weights that stay in fp32."""
        made = quantise(self.proto, self.model.exported, scheme, kept.__contains__)
        content: bytes = made.graph.SerializeToString()
        return content, Session(content, threads=1), made.precisions

    def converted(self, precision: str, content: bytes, session: Session, parts: dict[str, str], more: dict[str, Any]) -> Converted:
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
        return Converted(content, session, self.session, record, len(content), self.bytes)
