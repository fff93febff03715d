"""ONNX Runtime sessions on the CPU, and torch models with the same interface."""

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kd.errors import KdError
from kd.export.extra import onnx_module
from kd.export.onnx_graph import Exported
from kd.export.onnx_model import OnnxModel
from stillhouse.errors import one_line

MAPPED_BYTES = 256_000_000
"""A larger model is read from a temporary file that is mapped into memory. From bytes, ONNX Runtime makes a second copy."""


class Session:
    """A model file, or a model that has none yet, ready to run. inputs, outputs: names in the file's order."""

    def __init__(self, model: Path | OnnxModel, threads: int | None = None, scratch: Path | None = None, arena: bool = True) -> None:
        """threads: of one operator; None: as many as ONNX Runtime chooses. scratch: a folder for a large model's temporary file.

        arena: keep the memory of a run for the next one, which is faster. Raises KdError for a file that cannot be read.
        """
        runtime = onnx_module("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = 4
        self.arena = arena
        self._shrinking = runtime.RunOptions()
        self._shrinking.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
        if threads is not None:
            options.intra_op_num_threads = threads
            options.inter_op_num_threads = 1
        if isinstance(model, Path):
            self._session = _open(str(model), str(model), options)
        elif model.size < MAPPED_BYTES:
            self._session = _open("model.onnx", model.content(), options)
        else:
            with tempfile.TemporaryDirectory(prefix=".stillhouse-", dir=scratch) as folder:
                path = Path(folder) / "model.onnx"
                model.write(path, mapped=True)
                self._session = _open(path.name, str(path), options)
        self.inputs = [value.name for value in self._session.get_inputs()]
        self.outputs = [value.name for value in self._session.get_outputs()]
        self.width: int | str = self._session.get_outputs()[0].shape[-1]
        """Of the first output: a number, or the name of an axis."""

    def run(self, arrays: Sequence[NDArray[np.int64]]) -> list[NDArray[np.float32]]:
        """The outputs in order. arrays: [B, S] int64, in the order of `inputs`."""
        feeds = dict(zip(self.inputs, arrays, strict=True))
        made: list[NDArray[np.float32]] = self._session.run(None, feeds, None if self.arena else self._shrinking)
        return made


def _open(where: str, content: str | bytes, options: Any) -> Any:
    try:
        return onnx_module("onnxruntime").InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class for each status code
        raise KdError(f"{where}: expected a model that ONNX Runtime can load, got {one_line(error)}; export it again") from error


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
