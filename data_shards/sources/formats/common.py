"""Lines, UTF-8 and error lines for all file formats."""

import codecs
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from data_shards.errors import DataError

CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 128 << 20
"""A longer line is refused: it is no document, and would have to fit into memory several times."""
UTF32 = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
"""The first begins like UTF-16's mark and is looked for first."""
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
LFS_POINTER = b"version https://git-lfs.github.com/spec/"
ARCHIVES = {
    b"PK\x03\x04": "a zip archive; unpack it",
    b"PK\x05\x06": "a zip archive; unpack it",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"Rar!\x1a": "a rar archive; unpack it",
    b"\x1f\x8b": "gzip data; let the file's name end in .gz",
    b"\xfd7zXZ": "xz data; let the file's name end in .xz",
    b"\x28\xb5\x2f\xfd": "zstd data; let the file's name end in .zst",
    b"PAR1": "a parquet file; let its name end in .parquet, or set kind: parquet",
    b"ARROW1": "an Arrow file; save it as parquet",
    b"SQLite format 3": "an SQLite database; export its text",
    b"%PDF-": "a PDF; convert it to text",
    LFS_POINTER: "a Git LFS pointer; fetch the file with git lfs pull",
}


@dataclass(frozen=True)
class Fields:
    """The part of a file that is a document.

    path: the file's name in errors.
    column: the column that holds the text.
    per: the unit that plain text is split by.
    ending: the file's own, such as .tsv.
    separator, quoting: settings of csv; None and auto follow the ending.
    member: the member of a webdataset sample that holds the text.
    """

    path: str
    column: str
    per: str
    ending: str = ""
    separator: str | None = None
    quoting: str = "auto"
    member: str = "txt"


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
    """A file format: the name that `kind` takes, its endings, and its reader. A reader reads the file once."""

    kind: str
    endings: tuple[str, ...]
    read: Callable[[BinaryIO, Fields], Iterator[Found]]
    by_ending: bool = True
    """True if kind auto reads files with these endings."""


def missing_column(where: str, column: str, columns: Iterable[str], advice: str = "set the source's column (--column)") -> DataError:
    """The error for a column that is not there. It names the columns that are."""
    return DataError(f"{where}: expected a column {column}, got columns {', '.join(columns) or 'none'}; {advice}")


def decoded(content: bytes, path: str, offset: int) -> str | InvalidText:
    """The text of bytes that begin at a byte offset of a (decompressed) file."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        where = f"{path}, byte {offset + error.start}"
        return InvalidText(where, f"byte 0x{content[error.start]:02x} ({error.reason})", content.decode(errors="replace"))


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
    if begin[:3] == b"BZh" and begin[4:10] == b"1AY&SY":
        raise DataError(f"{path}: expected text, got bzip2 data; let the file's name end in .bz2")
    if begin[257:262] == b"ustar":
        raise DataError(f"{path}: expected text, got a tar archive; unpack it, or set kind: webdataset")
    if begin.startswith(UTF32):
        raise DataError(f"{path}: expected UTF-8, got UTF-32; convert it: iconv -f UTF-32 -t UTF-8 {path}")
    half = begin[: len(begin) // 2 * 2][:4096]
    zeros = max(half[0::2].count(0), half[1::2].count(0))
    if begin.startswith(UTF16) or (len(half) >= 4 and zeros * 2 >= len(half) * 0.8):
        raise DataError(f"{path}: expected UTF-8, got UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {path}")


def check_is_no_pointer(file: BinaryIO, path: str) -> None:
    """Raises DataError for a Git LFS pointer in place of a binary file that can be rewound."""
    if file.seekable():
        begin = file.read(len(LFS_POINTER))
        file.seek(0)
        if begin == LFS_POINTER:
            raise DataError(f"{path}: expected the file, got {ARCHIVES[LFS_POINTER]}")


def text_value(value: object, origin: str, column: str) -> str:
    """A field as text; a null is an empty document. Raises DataError for another type."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{origin}: expected text in column {column}, got {type(value).__name__}; choose another column")
    return value


def without_surrogates(text: str, where: str) -> str | InvalidText:
    """The text, or InvalidText where it holds an unpaired surrogate, which UTF-8 cannot express."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return InvalidText(where, "an unpaired surrogate", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
    return text
