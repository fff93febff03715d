"""Documents out of an open file: plain text, JSON lines, parquet and CSV. Each reader walks the file once and never holds it whole,
except where a document is the whole file."""

import codecs
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from data_shards.errors import DataError

MOST_BYTES = 1 << 27
"""Of one line, or of a file that is one document. Tokenising takes about 50 times as much memory."""


@dataclass(frozen=True)
class Fields:
    """Which part of a file is a document: its path (for errors), the column that holds the text, and what plain text is split by."""

    path: str
    column: str
    per: str


@dataclass(frozen=True)
class InvalidText:
    """A document that is not valid UTF-8: where (file and byte), why, and the text with U+FFFD in place of what is wrong."""

    where: str
    reason: str
    repaired: str


Found = tuple[str | InvalidText, str]


def missing_column(where: str, column: str, columns: Iterable[str]) -> DataError:
    """The error for a column that is not there; names those that are."""
    return DataError(f"{where}: expected a column {column}, got columns {', '.join(columns) or 'none'}; set the source's column")


def decoded(content: bytes, path: str, offset: int) -> str | InvalidText:
    """The text of bytes that begin at a byte offset of a (decompressed) file."""
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        at = f"{path}, byte {offset + error.start}"
        return InvalidText(at, f"byte 0x{content[error.start]:02x} ({error.reason})", content.decode(errors="replace"))


def plain_text(file: BinaryIO, fields: Fields) -> Iterator[Found]:
    """A text file's lines, paragraphs, or itself; line ends and a byte order mark are no part of a document."""
    if fields.per == "file":
        content = file.read(MOST_BYTES + 1)
        if len(content) > MOST_BYTES:
            raise DataError(f"{fields.path}: expected a document of at most {MOST_BYTES:,} bytes, got a larger file; split it into lines")
        yield decoded(content.removeprefix(codecs.BOM_UTF8), fields.path, 0), f"{fields.path}:0"
        return
    if fields.per == "line":
        for number, offset, line in _lines(file, fields.path):
            yield decoded(line.rstrip(b"\r\n"), fields.path, offset), f"{fields.path}:{number}"
        return
    paragraph: list[bytes] = []
    first, begin = 1, 0
    for number, offset, line in _lines(file, fields.path):
        if line.strip():
            if not paragraph:
                first, begin = number, offset
            paragraph.append(line)
        elif paragraph:
            yield decoded(b"".join(paragraph).rstrip(), fields.path, begin), f"{fields.path}:{first}"
            paragraph = []
    if paragraph:
        yield decoded(b"".join(paragraph).rstrip(), fields.path, begin), f"{fields.path}:{first}"


def json_lines(file: BinaryIO, fields: Fields) -> Iterator[Found]:
    """One field of each line's JSON object; a null is an empty document."""
    for number, offset, line in _lines(file, fields.path):
        origin = f"{fields.path}:{number}"
        valid = decoded(line, fields.path, offset)
        raw = valid.repaired if isinstance(valid, InvalidText) else valid
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
        except ValueError as error:
            raise DataError(f"{origin}: expected one JSON object a line, got {error}; repair the line, or set the source's kind") from None
        if not isinstance(row, dict):
            raise DataError(
                f"{origin}: expected one JSON object a line, got {type(row).__name__}; repair the line, or set the source's kind"
            )
        if fields.column not in row:
            raise missing_column(origin, fields.column, row)
        text = _text(row[fields.column], origin, fields.column)
        if isinstance(valid, InvalidText):
            yield InvalidText(valid.where, valid.reason, text), origin
        elif text.isascii() or not _has_surrogate(text):
            yield text, origin
        else:
            repaired = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
            yield InvalidText(f"{fields.path}, byte {offset}", "an unpaired surrogate", repaired), origin


def parquet(file: BinaryIO, fields: Fields) -> Iterator[Found]:
    """One column of a parquet file, a thousand rows at a time."""
    try:
        table = pq.ParquetFile(file)
        if fields.column not in table.schema_arrow.names:
            raise missing_column(fields.path, fields.column, table.schema_arrow.names)
        kind = table.schema_arrow.field(fields.column).type
        if not any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)):
            raise DataError(f"{fields.path}: expected text in column {fields.column}, got {kind}; choose another column")
        number = 0
        for batch in table.iter_batches(batch_size=1000, columns=[fields.column]):
            for value in batch.column(0).cast(pa.large_binary()).to_pylist():
                origin = f"{fields.path}:{number}"
                text = decoded(value or b"", origin, 0)
                yield text, origin
                number += 1
    except pa.ArrowException as error:
        raise DataError(
            f"{fields.path}: expected a parquet file, got {' '.join(str(error).split())}; repair or leave out the file"
        ) from None


def csv_rows(file: BinaryIO, fields: Fields) -> Iterator[Found]:
    """One column of a CSV file with a header line; separated by tabs where the name says .tsv."""
    csv.field_size_limit(sys.maxsize)
    invalid: list[InvalidText] = []

    def text_lines() -> Iterator[str]:
        for _, offset, line in _lines(file, fields.path):
            text = decoded(line, fields.path, offset)
            if isinstance(text, InvalidText):
                invalid.append(text)
                text = text.repaired
            yield text

    rows = csv.reader(text_lines(), delimiter="\t" if ".tsv" in fields.path else ",")
    try:
        header = next(rows, [])
        if fields.column not in header:
            raise missing_column(fields.path, fields.column, header)
        index = header.index(fields.column)
        for row in rows:
            if not row:
                continue
            origin = f"{fields.path}:{rows.line_num}"
            if len(row) <= index:
                raise DataError(f"{origin}: expected {len(header)} fields, got {len(row)}; repair the line")
            yield (InvalidText(invalid[0].where, invalid[0].reason, row[index]) if invalid else row[index]), origin
            invalid.clear()
    except csv.Error as error:
        raise DataError(f"{fields.path}:{rows.line_num}: expected CSV, got {error}; repair the line") from None


def _lines(file: BinaryIO, path: str) -> Iterator[tuple[int, int, bytes]]:
    """(number from 1, byte offset, line with its end) of a file; a byte order mark is left out. DataError for a line above MOST_BYTES."""
    offset = 0
    for number, line in enumerate(iter(lambda: file.readline(MOST_BYTES + 1), b""), 1):
        if len(line) > MOST_BYTES:
            raise DataError(f"{path}:{number}: expected a line of at most {MOST_BYTES:,} bytes, got a longer one; break it into documents")
        begin, offset = offset, offset + len(line)
        if number == 1 and line.startswith(codecs.BOM_UTF8):
            begin, line = len(codecs.BOM_UTF8), line.removeprefix(codecs.BOM_UTF8)
        yield number, begin, line


def _text(value: Any, origin: str, column: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{origin}: expected text in column {column}, got {type(value).__name__}; choose another column")
    return value


def _has_surrogate(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


FORMATS: dict[str, Callable[[BinaryIO, Fields], Iterator[Found]]] = {
    "text": plain_text,
    "jsonl": json_lines,
    "parquet": parquet,
    "csv": csv_rows,
}
