"""What all file formats share: lines, UTF-8, and the error lines."""

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from data_shards.errors import DataError

CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 128 << 20
"""A longer line is refused: it is no document, and would have to fit into memory several times."""
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
ARCHIVES = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!": "a rar archive; unpack it",
    b"\x1f\x8b": "gzip data; let the file's name end in .gz",
    b"BZh": "bzip2 data; let the file's name end in .bz2",
    b"\xfd7zXZ": "xz data; let the file's name end in .xz",
    b"\x28\xb5\x2f\xfd": "zstd data; let the file's name end in .zst",
    b"PAR1": "a parquet file; let its name end in .parquet, or set kind: parquet",
    b"%PDF": "a PDF; convert it to text",
}


@dataclass(frozen=True)
class Fields:
    """The part of a file that is a document.

    path: for errors. column: holds the text. per: what plain text is split by. ending: the file's own, as .tsv. separator, quoting: of csv;
    None and auto follow the ending.
    """

    path: str
    column: str
    per: str
    ending: str = ""
    separator: str | None = None
    quoting: str = "auto"


@dataclass(frozen=True)
class InvalidText:
    """A document that is not valid UTF-8: where (file and byte), why, and the text with U+FFFD in place of the invalid bytes."""

    where: str
    reason: str
    repaired: str


Found = tuple[str | InvalidText, str]
"""A document, and its origin (file:line, file:row or file:byte)."""


@dataclass(frozen=True)
class Format:
    """A file format: the name that `kind` takes, its endings, and its reader. A reader walks the file once."""

    kind: str
    endings: tuple[str, ...]
    read: Callable[[BinaryIO, Fields], Iterator[Found]]


def missing_column(where: str, column: str, columns: Iterable[str]) -> DataError:
    """The error for a column that is not there. It names the columns that are."""
    return DataError(f"{where}: expected a column {column}, got columns {', '.join(columns) or 'none'}; set the source's column")


def decoded(content: bytes, path: str, offset: int) -> str | InvalidText:
    """The text of bytes that begin at a byte offset of a (decompressed) file."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        at = f"{path}, byte {offset + error.start}"
        return InvalidText(at, f"byte 0x{content[error.start]:02x} ({error.reason})", content.decode(errors="replace"))


def lines(file: BinaryIO, path: str) -> Iterator[tuple[int, int, bytes]]:
    """(number from 1, byte offset, line with its end) of a text file. A line ends with LF, CR LF or CR alone.

    A UTF-8 byte order mark is left out. Raises DataError for UTF-16, for archives, and for a line of more than MAX_LINE_BYTES.
    """
    number, offset, pending = 0, 0, b""
    for chunk in iter(lambda: file.read(CHUNK_BYTES), b""):
        if offset == 0 and not pending:
            check_is_text(chunk, path)
            if chunk.startswith(codecs.BOM_UTF8):
                offset, chunk = len(codecs.BOM_UTF8), chunk.removeprefix(codecs.BOM_UTF8)
        complete = (pending + chunk).splitlines(keepends=True)
        # the last line may go on in the next chunk; after a CR, a LF may follow
        pending = complete.pop() if complete and not complete[-1].endswith(b"\n") else b""
        if len(pending) > MAX_LINE_BYTES:
            raise DataError(
                f"{path}:{number + len(complete) + 1}: expected a line of at most {MAX_LINE_BYTES >> 20} MB, got a longer one; "
                "split the file into lines, or the documents into several"
            )
        for line in complete:
            number += 1
            yield number, offset, line
            offset += len(line)
    if pending:
        yield number + 1, offset, pending


def check_is_text(begin: bytes, path: str) -> None:
    """Raises DataError if the first bytes of a file are UTF-16, or those of an archive or another binary format."""
    for mark, got in ARCHIVES.items():
        if begin.startswith(mark):
            raise DataError(f"{path}: expected text, got {got}")
    half = begin[: len(begin) // 2 * 2][:4096]
    zeros = max(half[0::2].count(0), half[1::2].count(0))
    if begin.startswith(UTF16) or (len(half) >= 4 and zeros * 2 >= len(half) * 0.8):
        raise DataError(f"{path}: expected UTF-8, got UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {path}")
