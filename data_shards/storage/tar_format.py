"""The members of a tar, read by their headers alone. Plain files with a block's names are accepted, all others refused.

A shard is a webdataset tar: members NNNNNN-NNNNN.{json,lengths.npy,tokens.npy} in the plain ustar format.
"""

import io
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Bytes = NDArray[np.uint8]
MEMBER = re.compile(r"(?P<key>\d{6}-\d{5})\.(?P<kind>json|lengths\.npy|tokens\.npy)")
RECORD = 512


class BrokenTar(Exception):
    """Bytes that are not a shard's tar. The message describes them."""


@dataclass(frozen=True)
class Member:
    """One payload: bytes [start, stop) of the tar."""

    key: str
    kind: str
    start: int
    stop: int


def member_header(name: str, size: int) -> bytes:
    """The header of a plain file that nobody owns and that has no date: equal content, equal bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    return info.tobuf(tarfile.USTAR_FORMAT)


def padding(size: int) -> bytes:
    """Zeros that fill a payload up to a whole number of records."""
    return b"\0" * (-size % RECORD)


def members(tar: Bytes) -> Iterator[Member]:
    """The members in order, up to the closing empty records. Raises BrokenTar for anything but the next member."""
    offset = 0
    while True:
        header = tar[offset : offset + RECORD].tobytes()
        if len(header) < RECORD:
            raise BrokenTar("a file that ends too early")
        if not any(header):
            return
        try:
            info = tarfile.TarInfo.frombuf(header, "utf-8", "strict")
        except (tarfile.TarError, UnicodeDecodeError) as error:
            raise BrokenTar(f"a broken header at byte {offset} ({error})") from None
        named = MEMBER.fullmatch(info.name)
        if not info.isreg() or named is None:
            raise BrokenTar(f"a member {info.name!r} that is not a block's plain file")
        start = offset + RECORD
        if start + info.size > len(tar):
            raise BrokenTar(f"a file that ends too early, inside {info.name}")
        yield Member(named["key"], named["kind"], start, start + info.size)
        offset = start + info.size + len(padding(info.size))


def npy_bytes(array: NDArray[Any]) -> bytes:
    """A one-dimensional array of numbers as the bytes of an .npy file."""
    return npy_header(len(array), array.dtype) + array.tobytes()


def npy_header(count: int, dtype: np.dtype[Any]) -> bytes:
    """The header of an .npy file of `count` numbers in one dimension."""
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": dtype.str, "fortran_order": False, "shape": (count,)})
    return head.getvalue()


def npy_array(content: bytes, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    """The `count` numbers of a whole .npy file. Raises ValueError for other content; npy_payload has the reason."""
    header = npy_header(count, dtype)
    if not content.startswith(header) or len(content) != len(header) + count * dtype.itemsize:
        raise ValueError(f"a file that does not hold {count} numbers of {dtype} in one dimension")
    return np.frombuffer(content, dtype, offset=len(header)).copy()


def npy_payload(tar: Bytes, member: Member, dtype: np.dtype[Any], count: int) -> int:
    """The byte of the tar at which the `count` numbers of an .npy member begin. Raises BrokenTar for other content.

    The header is compared, never evaluated: numpy would parse it as Python, and a damaged one fails there in many ways.
    """
    header = npy_header(count, dtype)
    start = member.start + len(header)
    if tar[member.start : start].tobytes() != header or member.stop - start != count * dtype.itemsize or start % dtype.itemsize:
        raise BrokenTar(f"{member.key}.{member.kind} that does not hold {count} numbers of {dtype} in one dimension")
    return start
