"""Counts of what an update computes, instead of its time: calls by kind, shapes of results, and questions that a GPU would wait for."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

PRODUCTS = {"mm", "addmm", "bmm", "baddbmm"}
SOFTMAXES = {"_softmax", "_log_softmax", "logsumexp"}
WAITS = {"_local_scalar_dense", "nonzero", "masked_select", "_unique2"}
LISTS = (Tensor.tolist, Tensor.numpy)


class CountedCalls(TorchDispatchMode):
    """calls: by kind. shapes: of all results. waits: by the line of the project that asked. bytes: of collectives, by kind.

    largest_float64: elements of the largest result in float64.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.shapes: Counter[tuple[int, ...]] = Counter()
        self.waits: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.largest_float64 = 0
        self._lists = _Lists(self.waits)

    def __enter__(self) -> "CountedCalls":
        self._lists.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._lists.__exit__(*error)

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        result = func(*args, **(kwargs or {}))
        for kind, names in (("products", PRODUCTS), ("softmaxes", SOFTMAXES)):
            self.calls[kind] += name in names
        self.calls["collectives"] += func.namespace == "c10d"
        if func.namespace == "c10d":
            self.bytes[name] += sum(tensor.numel() * tensor.element_size() for tensor in _tensors(args))
        masks = name == "index" and any(index is not None and index.dtype == torch.bool for index in args[1])
        if name in WAITS or masks:
            self.waits[asker()] += 1
        for tensor in result if isinstance(result, tuple | list) else (result,):
            if isinstance(tensor, Tensor):
                self.shapes[tuple(tensor.shape)] += 1
                self.largest_float64 = max(self.largest_float64, tensor.numel() if tensor.dtype == torch.float64 else 0)
        return result


class _Lists(TorchFunctionMode):
    def __init__(self, waits: Counter[str]) -> None:
        super().__init__()
        self._waits = waits

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in LISTS:
            self._waits[asker()] += 1
        return func(*args, **(kwargs or {}))


def _tensors(values: Any) -> list[Tensor]:
    """All tensors in nested lists."""
    if isinstance(values, Tensor):
        return [values]
    return [tensor for value in values for tensor in _tensors(value)] if isinstance(values, list | tuple) else []


def asker() -> str:
    """FILE:FUNCTION of the project's code that is nearest in the stack."""
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if "/kd/" in name and "/tests/" not in name and "/site-packages/" not in name:
            return f"{name.rsplit('/kd/', 1)[1]}:{frame.f_code.co_name}"
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere"
