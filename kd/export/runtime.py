"""ONNX Runtime sessions on the CPU, and torch models with the same interface."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kd.errors import KdError
from kd.export.extra import onnx_module
from kd.export.onnx_graph import Exported
from stillhouse.errors import one_line


class Session:
    """A model file or its bytes, ready to run. inputs, outputs: names in the file's order."""

    def __init__(self, model: Path | bytes, threads: int | None = None) -> None:
        """threads: of one operator; None: as many as ONNX Runtime chooses. Raises KdError for a file that it cannot read."""
        runtime = onnx_module("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        where = str(model) if isinstance(model, Path) else "model.onnx"
        try:
            content = model if isinstance(model, bytes) else str(model)
            self._session: Any = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises a class for each status code
            raise KdError(f"{where}: expected a model that ONNX Runtime can load, got {one_line(error)}; export it again") from error
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]

    def run(self, arrays: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """The outputs in order. arrays: [B, S] int64, in the order of `inputs`."""
        made: list[NDArray[np.float32]] = self._session.run(None, dict(zip(self.inputs, arrays, strict=True)))
        return made


def runtime_versions() -> dict[str, str]:
    """The versions of the packages that run a model."""
    return {"onnxruntime": str(onnx_module("onnxruntime").__version__)}


class TorchSession:
    """The original model with the interface of a Session, for comparisons."""

    def __init__(self, exported: Exported) -> None:
        self._exported = exported.eval()
        self.inputs, self.outputs = list(exported.inputs), list(exported.outputs)

    def run(self, arrays: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """The outputs in fp32, in order. arrays: [B, S] int64, in the order of `inputs`."""
        with torch.inference_mode():  # `Exported.arrays` sets eval mode each time, which takes a tenth of the time of a short input
            made = self._exported(*(torch.from_numpy(array) for array in arrays))
        return [value.float().numpy() for value in (made if isinstance(made, tuple) else (made,))]


AnySession = Session | TorchSession
