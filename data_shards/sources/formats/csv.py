"""CSV and TSV with a header line: a document per row."""

import csv
import re
from collections.abc import Iterator
from typing import BinaryIO

from data_shards.errors import DataError
from data_shards.sources.formats.common import MAX_LINE_BYTES, Fields, Format, Found, InvalidText, decoded, lines, missing_column

ESCAPE = re.compile(r'\\(["\\]?)')
"""A backslash, with the quote or backslash that it stands before. Before any other character it is text."""
MAX_FIELD_CHARACTERS = MAX_LINE_BYTES
"""A longer field is a quote that is not closed: it would take the rest of the file into memory."""
OTHER_SEPARATORS = (";", "\t", "|", ",")


def read(file: BinaryIO, fields: Fields) -> Iterator[Found]:
    """One column. A file that ends in .tsv is separated by tabs and its quotes are text; others are separated by commas and quoted.

    Raises DataError for a row with more or fewer fields than the header, and for a quote that is not closed.
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
    rows = csv.reader(
        text_lines(),
        delimiter=separator,
        quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL,
        doublequote=quoting != "backslash",
        escapechar="\\" if quoting == "backslash" else None,
        strict=not plain,
    )
    begin = 1
    try:
        header = next(rows, [])
        if fields.column not in header:
            raise _missing(fields, header, separator)
        if header.count(fields.column) > 1:
            raise DataError(f"{fields.path}: expected one column {fields.column}, got {header.count(fields.column)}; rename one")
        index = header.index(fields.column)
        begin = rows.line_num + 1
        for row in rows:
            origin = f"{fields.path}:{begin}"
            begin = rows.line_num + 1
            if not row:
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{origin}: expected {len(header)} fields, as the header has, got {len(row)}; "
                    "quote the text, or set --separator and --quoting as the file has them"
                )
            yield (InvalidText(invalid[0].where, invalid[0].reason, row[index]) if invalid else row[index]), origin
            invalid.clear()
    except csv.Error as error:
        raise DataError(
            f"{fields.path}:{begin}: expected CSV, got {_got(str(error))}; repair the row, or set --quoting none or backslash"
        ) from None


def dialect(fields: Fields) -> tuple[str, str]:
    """(separator, quoting) of a file: those that were set, else those of its ending."""
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
