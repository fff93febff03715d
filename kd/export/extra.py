"""The packages of the extra `stillhouse[onnx]`, imported at their first use."""

from importlib import import_module
from typing import Any

from kd.errors import KdError


def onnx_module(name: str) -> Any:
    """A module of onnx or onnxruntime. Raises KdError with the install command where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        package = name.split(".", 1)[0]
        raise KdError(f"{package}: expected the package for ONNX, got none; run: pip install 'stillhouse[onnx]'") from error
