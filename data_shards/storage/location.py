"""Where a shard folder lives: a folder of this machine or a URL, whose files are copied once into a cache folder.

http(s) is read by the standard library, every other scheme by fsspec. A copy is complete or absent: it is written beside its
place, checked, synced and renamed. Nothing here knows what a file means.
"""

import base64
import errno
import io
import os
import ssl
import time
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException, IncompleteRead
from pathlib import Path
from typing import BinaryIO, TypeVar, cast
from urllib.error import HTTPError
from urllib.parse import unquote, urlsplit, urlunsplit

import fsspec
from filelock import FileLock

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


def is_url(place: str) -> bool:
    """Whether a place is reached through a protocol rather than through this machine's folders."""
    return "://" in place


def open_url(url: str) -> BinaryIO:
    """The bytes behind a URL, as a file open for reading from the front. Raises ValueError for a port that is no number."""
    if url.startswith(("http://", "https://")):
        parts = urlsplit(url)
        try:
            _ = parts.port
        except ValueError:  # its text quotes the port, which is a part of the password where that holds a slash
            raise ValueError("a port that is no number from 0 to 65535 (write / in a password as %2F)") from None
        user, at, host = parts.netloc.rpartition("@")
        request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)))
        if at:
            request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
        try:
            return cast(BinaryIO, urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS))
        except HTTPError as error:
            error.close()  # it holds the connection
            raise
    return cast(BinaryIO, fsspec.open(url, "rb").open())


def persistently(action: Callable[[], T], where: str) -> T:
    """What `action` returns, tried up to ATTEMPTS times with doubling waits.

    Raises DataError with the last failure, DamagedFile where the file is absent or altered. A permanent failure is raised at once.
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
    """Whether the same request fails again. HTTP: every redirect that was not followed, and what a client has to change (RFC 9110)."""
    if isinstance(error, HTTPError):
        return (error.code < 500 and error.code not in PASSING) or error.code in (501, 505)
    reason = getattr(error, "reason", None)  # urllib's URLError has the cause here, or a text
    if isinstance(reason, ssl.SSLCertVerificationError) or str(reason).startswith("unknown url type"):
        return True
    if isinstance(error, HTTPException):
        return not isinstance(error, BadStatusLine | IncompleteRead)  # a connection that ended early
    return isinstance(error, ImportError | ValueError | PermissionError | IsADirectoryError | NotADirectoryError)


class Altered(EOFError):
    """A whole file that is not the one that was promised."""

    def __init__(self, message: str, copy: Path) -> None:
        super().__init__(message)
        self.copy = copy


@dataclass(frozen=True)
class Location:
    """A shard folder: a path, or a URL with the cache folder for its copies."""

    root: str
    cache_folder: str | None = None

    @classmethod
    def of(cls, folder: "str | Path | Location", cache_folder: str | Path | None = None) -> "Location":
        """The location that a user's word means."""
        if isinstance(folder, Location):
            return folder
        root = str(folder).removeprefix("file://").rstrip("/") or "/"
        return cls(root, None if cache_folder is None else str(cache_folder))

    @property
    def is_remote(self) -> bool:
        return is_url(self.root)

    def where(self, name: str) -> str:
        """The place of a file of this folder. What a URL has after a question mark stays behind the name."""
        before, mark, query = self.root.partition("?") if self.is_remote else (self.root, "", "")
        return f"{before.rstrip('/')}/{name}{mark}{query}" if mark else f"{self.root}/{name}"

    def read(self, name: str) -> bytes:
        """A small file, whole. Raises DataError when it is absent or unreadable."""
        if self.is_remote:
            return persistently(lambda: _whole(self.where(name)), self.where(name))
        try:
            with open(self.where(name), "rb") as file:
                size = min(os.fstat(file.fileno()).st_size, MOST_BYTES)
                content = file.read(size + 1)  # Python sets so many bytes aside, whatever comes
            if len(content) > MOST_BYTES:
                raise DataError(f"{self.where(name)}: expected at most {MOST_BYTES:,} bytes, got more; is it the right file?")
            return content
        except FileNotFoundError:
            raise DataError(f"{self.where(name)}: expected a file, got none; check the folder") from None
        except OSError as error:
            raise DataError(f"{self.where(name)}: expected a readable file, got {one_line(error)}; check its permissions") from None

    def path(self, name: str, size: int, sha256: str, *, anew: bool = False) -> Path:
        """A file of this machine with the named file's bytes, copied first where it is remote.

        A fresh copy has been checked against size and sha256; one that lay there against its size only. `anew` drops the old copy.
        Raises DamagedFile when the file is missing or a remote one is not the promised one, DataError when it cannot be reached.
        """
        if not self.is_remote:
            path = Path(self.where(name))
            if not path.is_file():
                if not Path(self.root).is_dir():
                    raise DataError(f"{self.root}: expected the folder of {name}, got no folder; is its disk mounted?")
                raise DamagedFile(f"{path}: expected a file of {size} bytes, got none; bring it back, or build the shards again")
            return path
        if self.cache_folder is None:
            raise DataError(f"{self.root}: expected a cache folder for the copies of remote shards, got none; set data.cache_folder")
        copy = Path(self.cache_folder) / sha256[:16] / name
        try:
            copy.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(copy.with_name(f".{copy.name}.lock")):
                if anew:
                    copy.unlink(missing_ok=True)
                if not copy.is_file() or copy.stat().st_size != size:
                    persistently(lambda: self._copy(name, copy, size, sha256), self.where(name))
        except OSError as error:
            raise DataError(f"{copy}: expected a cache folder that can be written, got {one_line(error)}; choose another") from None
        return copy

    def _copy(self, name: str, copy: Path, size: int, sha256: str) -> None:
        partial = copy.with_name(f".{copy.name}.partial")
        with open_url(self.where(name)) as source, open(partial, "wb") as target:
            found = _received(source, target, size)
            target.flush()
            os.fsync(target.fileno())
        if found != size or sha256_of_file(partial) != sha256:
            more = "more than " if found > size else ""
            raise Altered(f"{more}{min(found, size)} bytes that are not the {size} bytes with sha256 {sha256[:12]}…", partial)
        partial.replace(copy)


def _received(source: BinaryIO, target: BinaryIO, most: int) -> int:
    """Bytes copied, a chunk beyond `most` at most. Raises TimeoutError for a trickle, ConnectionError for less than was announced."""
    began, found = time.monotonic(), 0
    read = getattr(source, "read1", source.read)  # what has come, rather than waiting for a whole chunk
    while found <= most and (part := read(CHUNK_BYTES)):
        target.write(part)
        found += len(part)
        took = time.monotonic() - began
        if took > TIMEOUT_SECONDS and found < took * SLOWEST_BYTES_PER_SECOND:
            raise TimeoutError(f"{found} bytes in {took:.0f} s")
    announced = getattr(source, "headers", {}).get("Content-Length", "")
    if announced.isdecimal() and found < min(int(announced), most):
        raise ConnectionError(f"a connection that ended after {found} of {announced} bytes")
    return found


def _whole(url: str) -> bytes:
    content = io.BytesIO()
    with open_url(url) as source:
        if _received(source, content, MOST_BYTES) > MOST_BYTES:
            raise ValueError(f"more than {MOST_BYTES:,} bytes")
    return content.getvalue()
