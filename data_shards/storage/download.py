"""Reading from URLs: http(s) by the standard library, every other scheme by fsspec; requests are repeated, copies are checked.

A copy is complete or absent: it is written under a temporary name, checked, synced and renamed.
"""

import base64
import errno
import io
import os
import ssl
import time
import urllib.request
from collections.abc import Callable
from http.client import BadStatusLine, HTTPException, IncompleteRead
from pathlib import Path
from typing import BinaryIO, TypeVar, cast
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit

import fsspec

from data_shards.errors import DamagedFile, DataError
from stillhouse.errors import one_line
from stillhouse.files import sha256_of_file

ATTEMPTS = 8  # with doubling waits, a minute: a server that starts again is waited for
FIRST_WAIT_SECONDS = 0.5
TIMEOUT_SECONDS = 60.0  # without a byte
SLOWEST_BYTES_PER_SECOND = 1024.0  # on average, once TIMEOUT_SECONDS have gone by
MOST_BYTES = 1 << 30  # of a file that is read whole: a manifest of a million shards has a quarter of it
CHUNK_BYTES = 1 << 20
ABSENT = (404, 410)  # HTTP's words for it
PASSING = (408, 421, 423, 425, 429)  # errors of a request that can succeed later
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)  # waiting does not help
T = TypeVar("T")


def is_url(path: str) -> bool:
    """True for a URL, False for a path of this machine."""
    return "://" in path


def open_url(url: str) -> BinaryIO:
    """The bytes behind a URL, as a file open for reading from the front. Raises ValueError for a port that is no number."""
    if url.startswith(("http://", "https://")):
        parts = urlsplit(url)
        try:
            _ = parts.port
        except ValueError:  # its text quotes the port, which is a part of the password where that holds a slash
            raise ValueError("a port that is no number from 0 to 65535 (write / in a password as %2F)") from None
        user, separator, host = parts.netloc.rpartition("@")
        request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)))
        if separator:
            request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
        try:
            return cast(BinaryIO, urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS))
        except HTTPError as error:
            error.close()  # it holds the connection
            raise
    return cast(BinaryIO, fsspec.open(url, "rb").open())


def with_retries(action: Callable[[], T], where: str) -> T:
    """The result of `action`, tried up to ATTEMPTS times with doubling waits.

    Raises DataError with the last failure, DamagedFile if the file is absent or altered. A permanent failure is raised at once.
    """
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except FileNotFoundError:
            raise DamagedFile(f"{where}: expected a file, got none; check the place") from None
        except (OSError, EOFError, ImportError, ValueError, HTTPException) as error:
            if _is_permanent(error):
                kind = DamagedFile if getattr(error, "code", None) in ABSENT else DataError
                raise kind(f"{where}: expected a readable file, got {one_line(error)}; check the place") from None
            if getattr(error, "errno", None) in NO_ROOM:
                raise DataError(
                    f"{where}: expected room for a copy, got {one_line(error)}; free some, or choose another cache folder"
                ) from None
            if isinstance(error, Altered) and attempt >= 2:
                line = f"{where}: expected the file of the manifest, got {error} three times; bring it back, or build the shards again"
                raise DamagedFile(line, error.copy) from None
            if attempt == ATTEMPTS - 1:
                raise DataError(
                    f"{where}: expected a readable file, got {one_line(error)} in {ATTEMPTS} attempts; check the network and try again"
                ) from None
        time.sleep(FIRST_WAIT_SECONDS * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _is_permanent(error: Exception) -> bool:
    """True if the same request fails again. HTTP: redirects that were not followed, and errors of the client (RFC 9110)."""
    if isinstance(error, HTTPError):
        return (error.code < 500 and error.code not in PASSING) or error.code in (501, 505)
    reason = getattr(error, "reason", None)  # urllib's URLError has the cause here, or a text
    if isinstance(reason, ssl.SSLCertVerificationError) or str(reason).startswith("unknown url type"):
        return True
    if isinstance(error, HTTPException):
        return not isinstance(error, BadStatusLine | IncompleteRead)  # a connection that ended early
    return isinstance(error, ImportError | ValueError | PermissionError | IsADirectoryError | NotADirectoryError)


class Altered(EOFError):
    """A whole file whose bytes are not those of the manifest."""

    def __init__(self, message: str, copy: Path) -> None:
        super().__init__(message)
        self.copy = copy


def download(url: str, copy: Path, size: int, sha256: str) -> None:
    """Copy a file and check it. Raises Altered when it has another size or sha256."""
    partial = copy.with_name(f".{copy.name}.partial")
    with open_url(url) as source, open(partial, "wb") as target:
        count = _received(source, target, size)
        target.flush()
        os.fsync(target.fileno())
    if count != size or sha256_of_file(partial) != sha256:
        prefix = "more than " if count > size else ""
        raise Altered(f"{prefix}{min(count, size)} bytes that are not the {size} bytes with sha256 {sha256[:12]}…", partial)
    partial.replace(copy)


def _received(source: BinaryIO, target: BinaryIO, most: int) -> int:
    """Copy; the number of bytes, at most a chunk more than `most`.

    Raises TimeoutError for a server that is too slow, ConnectionError for fewer bytes than announced.
    """
    began, count = time.monotonic(), 0
    read = getattr(source, "read1", source.read)  # returns the bytes that are there; read waits for a whole chunk
    while count <= most and (part := read(CHUNK_BYTES)):
        target.write(part)
        count += len(part)
        took = time.monotonic() - began
        if took > TIMEOUT_SECONDS and count < took * SLOWEST_BYTES_PER_SECOND:
            raise TimeoutError(f"{count} bytes in {took:.0f} s")
    announced = getattr(source, "headers", {}).get("Content-Length", "")
    if announced.isdecimal() and count < min(int(announced), most):
        raise ConnectionError(f"a connection that ended after {count} of {announced} bytes")
    return count


def read_url(url: str) -> bytes:
    """A whole file of at most MOST_BYTES. Raises ValueError for a larger one."""
    content = io.BytesIO()
    with open_url(url) as source:
        if _received(source, content, MOST_BYTES) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes")
    return content.getvalue()
