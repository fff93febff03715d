"""CSV and TSV with a header line: a document per row."""

import csv
import re
from collections.abc import Callable, Iterator
from typing import BinaryIO, NamedTuple

from data_shards.errors import DataError
from data_shards.sources.formats.common import MAX_LINE_BYTES, Fields, Format, Found, InvalidText, decoded, lines, missing_column

ESCAPE = re.compile(r'\\(["\\]?)')
"""A backslash, and the quote or backslash after it. Before any other character a backslash is text."""
MAX_FIELD_CHARACTERS = MAX_LINE_BYTES
"""A longer field is a quote that is not closed: it would take the rest of the file into memory."""
OTHER_SEPARATORS = (";", "\t", "|", ",")


class Row(NamedTuple):
    """A row of fields, its origin (file:line), and the first of its lines that was not valid UTF-8."""

    values: list[str]
    origin: str
    invalid: InvalidText | None


def read(file: BinaryIO, fields: Fields) -> Iterator[Found]:
    """One column. A file that ends in .tsv is separated by tabs and its quotes are text; others are separated by commas and quoted.

    Raises DataError for a row with more or fewer fields than the header, and for a quote that is not closed.
    """
    all_rows = rows(file, fields)
    first = next(all_rows, None)
    header = first.values if first else []
    if fields.column not in header:
        raise _missing(fields, header, dialect(fields)[0])
    if header.count(fields.column) > 1:
        raise DataError(f"{fields.path}: expected one column {fields.column}, got {header.count(fields.column)}; rename one")
    index = header.index(fields.column)
    for row in all_rows:
        if len(row.values) != len(header):
            raise DataError(
                f"{row.origin}: expected {len(header)} fields, as the header has, got {len(row.values)}; "
                "quote the text, or set --separator and --quoting as the file has them"
            )
        text = row.values[index]
        yield (InvalidText(row.invalid.where, row.invalid.reason, text) if row.invalid else text), row.origin


def rows(file: BinaryIO, fields: Fields, skipped: Callable[[str], None] = lambda _: None) -> Iterator[Row]:
    """Every row that is not empty, the header among them. The first row is yielded even if it is empty.

    skipped: is called with the origin of each empty row.
    Raises DataError for a quote that is not closed.
    """
    csv.field_size_limit(MAX_FIELD_CHARACTERS)
    invalid: list[InvalidText] = []

    def text_lines() -> Iterator[str]:
        for _, offset, line in lines(file, fields.path):
            text = decoded(line, fields.path, offset)
            if isinstance(text, InvalidText):
                invalid.append(text)
                text = text.repaired
            yield ESCAPE.sub(lambda match: match[0] if match[1] else r"\\", text) if quoting == "backslash" else text

    separator, quoting = dialect(fields)
    plain = quoting == "none"
    parsed = csv.reader(
        text_lines(),
        delimiter=separator,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        doublequote=quoting != "backslash",
        escapechar="\\" if quoting == "backslash" else None,
        strict=not plain,
    )
    begin = 1
    try:
        for number, row in enumerate(parsed):
            origin = f"{fields.path}:{begin}"
            begin = parsed.line_num + 1
            if not row and number:
                skipped(origin)
                continue
            yield Row(row, origin, invalid[0] if invalid else None)
            if number:  # invalid UTF-8 in the header is reported with the first row
                invalid.clear()
    except csv.Error as error:
        raise DataError(
            f"{fields.path}:{begin}: expected CSV, got {_got(str(error))}; repair the row, or set --quoting none or backslash"
        ) from None


def dialect(fields: Fields) -> tuple[str, str]:
    """(separator, quoting) of a file. The ending decides each one that is not set."""
    tabs = fields.ending == ".tsv"
    separator = fields.separator or ("\t" if tabs else ",")
    return separator, ("none" if tabs else "double") if fields.quoting == "auto" else fields.quoting


def _missing(fields: Fields, header: list[str], separator: str) -> DataError:
    joined = separator.join(header)
    for other in OTHER_SEPARATORS:
        if other != separator and fields.column in [name.strip().strip('"') for name in joined.split(other)] and other in joined:
            shown = "\\t" if other == "\t" else other
            return DataError(
                f"{fields.path}: expected columns separated by {separator!r}, got a header with {shown!r} between the columns; "
                f"set --separator '{shown}'"
            )
    return missing_column(fields.path, fields.column, header)


def _got(error: str) -> str:
    if "unexpected end of data" in error or "field limit" in error:
        return (
            "a quote that is not closed before the end of the file"
            if "end of data" in error
            else "a quote that is not closed, or a field too long"
        )
    if "expected after" in error:
        return "a quote inside a quoted field that is not doubled"
    return error


FORMAT = Format("csv", (".csv", ".tsv"), read)
