"""Copies from the host to a device: from pinned memory, and beside the device's computing. On a CPU nothing is copied."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

Indices = tuple[Tensor, ...]
"""Rows and columns of positions in [B, S], or numbers of documents in [M]."""


class Copies:
    """Tensors that were copied on a stream, and the event after the last copy. Without an event they are there already."""

    def __init__(self) -> None:
        self.tensors: list[Tensor] = []
        self.event: torch.cuda.Event | None = None

    def arrive(self) -> None:
        """The current stream waits for the copies before it does anything later. The host does not wait."""
        if self.event is None:
            return
        current = torch.cuda.current_stream()
        current.wait_event(self.event)
        for tensor in self.tensors:  # its memory belongs to the stream of the copies, and is in use here
            tensor.record_stream(current)


class CopyStream:
    """A stream of a GPU for copies from the host. On another device, copies are made at once."""

    _current: Copies | None = None

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @contextmanager
    def copying(self) -> Iterator[Copies]:
        """Copies by `moved` go to the stream meanwhile. Nothing may be computed on the device within."""
        copies = Copies()
        if self.stream is None:
            yield copies
            return
        CopyStream._current = copies
        try:
            with torch.cuda.stream(self.stream):
                yield copies
                copies.event = self.stream.record_event()
        finally:
            CopyStream._current = None

    @classmethod
    def note(cls, tensor: Tensor) -> None:
        """Count a tensor among the copies that are made now."""
        if cls._current is not None:
            cls._current.tensors.append(tensor)


def moved(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor on another device; the tensor itself if it is there. A copy from the host to a GPU is queued, and the host goes on.

    Such a copy needs pinned memory. torch keeps that memory until the copy is done.
    """
    if tensor.device == device or (device.index is None and tensor.device.type == device.type):
        return tensor
    if device.type == "cuda" and tensor.device.type == "cpu" and tensor.numel() > 0 and not tensor.is_pinned():
        tensor = tensor.pin_memory()
    there = tensor.to(device, non_blocking=device.type != "cpu")
    CopyStream.note(there)
    return there


def positions_of(mask: Tensor, device: torch.device) -> Indices:
    """The set positions of a mask on the host, as indices on a device. On a GPU, the same question to the GPU would make the host wait."""
    return tuple(moved(index, device) for index in mask.nonzero(as_tuple=True))
