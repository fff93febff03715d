"""An ONNX model whose weights stay apart from its graph. One copy of a weight serves torch and every precision.

A model of less than 2 GB is one file. A larger one has a second file for its weights, because a protobuf has less than 2 GiB.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kd.export.extra import onnx_module

MOST_BYTES = 2_000_000_000
"""Of one file."""
DATA = ".data"
"""The ending of the second file, after the name of the first."""
INLINE_BYTES = 1 << 16
"""Smaller weights stay in the first file."""
ALIGNMENT = 4096
"""Of a weight in the second file: a page, so that the file can be mapped into memory."""
BYTES_FIELD = 2  # protobuf's wire type of messages and bytes

Array = NDArray[Any]


@dataclass(frozen=True)
class OnnxModel:
    """proto: a ModelProto without initializers. weights: the initializers by name, which may be views of a model's parameters."""

    proto: Any
    weights: dict[str, Array]

    @property
    def size(self) -> int:
        """The bytes of all files that `write` makes."""
        single = self._file_bytes()
        if single < MOST_BYTES:
            return single
        last = max((offset + array.nbytes for _, offset, array in self._data()), default=0)
        return len(self._with_references("").SerializeToString()) + last

    def write(self, path: Path, mapped: bool = False) -> None:
        """Write the model, weight by weight. mapped: with a second file, for any size."""
        if not mapped and self._file_bytes() < MOST_BYTES:
            with path.open("wb") as file:
                for piece in self._pieces():
                    file.write(piece)
            return
        data = path.with_name(path.name + DATA)
        with data.open("wb") as file:
            for _, offset, array in self._data():
                file.seek(offset)
                file.write(_raw(array))
        path.write_bytes(self._with_references(data.name).SerializeToString())

    def content(self) -> bytes:
        """The bytes of the single file."""
        return b"".join(self._pieces())

    def _data(self) -> Iterator[tuple[str, int, Array]]:
        """Name, offset and array of each weight of the second file."""
        end = 0
        for name, array in self.weights.items():
            if array.nbytes >= INLINE_BYTES:
                offset = -(-end // ALIGNMENT) * ALIGNMENT
                end = offset + array.nbytes
                yield name, offset, array

    def _with_references(self, location: str) -> Any:
        """The ModelProto, with a reference into the file `location` in place of each large weight."""
        made = type(self.proto)()
        made.CopyFrom(self.proto)
        large = {name: (offset, array.nbytes) for name, offset, array in self._data()}
        for name, array in self.weights.items():
            tensor = self._tensor(name, array)
            if name in large:
                tensor.data_location = type(tensor).EXTERNAL
                for key, value in zip(("location", "offset", "length"), (location, *large[name]), strict=True):
                    tensor.external_data.add(key=key, value=str(value))
            else:
                tensor.raw_data = bytes(_raw(array))
            made.graph.initializer.append(tensor)
        return made

    def _tensor(self, name: str, array: Array) -> Any:
        """A TensorProto without its numbers."""
        kind = onnx_module("onnx.helper").np_dtype_to_tensor_dtype(array.dtype)
        return onnx_module("onnx").TensorProto(name=name, dims=array.shape, data_type=kind)

    def _file_bytes(self) -> int:
        head, heads = self._heads()
        return len(head) + sum(len(one) + array.nbytes for one, array in heads)

    def _pieces(self) -> Iterator[Any]:
        """The ModelProto as protobuf writes it, in pieces. So no second copy of all weights is made."""
        head, heads = self._heads()
        yield head
        for one, array in heads:
            yield one
            yield _raw(array)

    def _heads(self) -> tuple[bytes, list[tuple[bytes, Array]]]:
        """The bytes before the first initializer, and those before the numbers of each."""
        proto = self.proto
        number = proto.graph.DESCRIPTOR.fields_by_name["initializer"].number
        heads = []
        for name, array in self.weights.items():
            tensor = self._tensor(name, array)
            inside = tensor.SerializeToString() + _key(tensor.DESCRIPTOR.fields_by_name["raw_data"].number, array.nbytes)
            heads.append((_key(number, len(inside) + array.nbytes) + inside, array))
        rest = type(proto)()
        rest.CopyFrom(proto)
        rest.ClearField("graph")
        graph = proto.graph.SerializeToString()
        length = len(graph) + sum(len(head) + array.nbytes for head, array in heads)
        return rest.SerializeToString() + _key(proto.DESCRIPTOR.fields_by_name["graph"].number, length) + graph, heads


def _key(number: int, length: int) -> bytes:
    """The bytes before a field of this number and length."""
    return _varint(number << 3 | BYTES_FIELD) + _varint(length)


def _varint(value: int) -> bytes:
    """Protobuf's integer: seven bits a byte, the lowest first."""
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def _raw(array: Array) -> memoryview:
    """The numbers in the order of rows, little-endian."""
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<")).reshape(-1).view(np.uint8).data
