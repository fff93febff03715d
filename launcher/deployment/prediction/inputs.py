"""Texts to predict on: lines, csv or jsonl from a file or standard input, one at a time.

The files are read as sources and tasks read them (data_shards.sources.formats): the same quotes, encodings, compressions and errors.
"""

import io
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from data_shards.errors import DataError
from data_shards.sources.files import ending
from data_shards.sources.formats import csv as csv_format
from data_shards.sources.formats.common import Fields, InvalidText, decoded, lines
from data_shards.sources.formats.jsonl import json_object
from data_shards.sources.sources import opened
from launcher.deployment.prediction.counted import Counted
from launcher.errors import LaunchError

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}


@dataclass(frozen=True)
class Text:
    """One text, or a pair, and its origin (file:line). words: given where the input has a list of words."""

    origin: str
    text: str
    pair: str | None
    words: list[str] | None = None

    def split_words(self) -> list[str]:
        """The words of the input, or the text split at white space."""
        return self.words if self.words is not None else self.text.split()


def format_of(path: str, given: str | None) -> str:
    """The format of a file by its ending, unless it is given. Standard input has lines."""
    return given or FORMATS.get(ending(path), "lines")


def read_texts(path: str, form: str, column: str, pair: str | None, empty: Counted) -> Iterator[Text]:
    """The texts of a file; `-` is standard input. empty: counts the empty lines, which are left out.

    Raises LaunchError for a file that cannot be read, a line that is not UTF-8, a line that is no JSON object, a row with another number
    of fields than the header, and a column that is not there.
    """
    try:
        if path == "-":
            yield from _texts(cast(BinaryIO, _StandardInput()), "standard input", form, column, pair, empty)
            return
        with opened(path, form) as (_, file):
            yield from _texts(file, path, form, column, pair, empty)
    except DataError as error:
        raise LaunchError(_with_options(str(error))) from error


def _with_options(error: str) -> str:
    """The error of a reader, with the options of `predict` in place of a source's settings."""
    return error.replace("set the source's kind (--kind)", "set --input-format").replace(", or set --quoting none or backslash", "")


def number_of_texts(path: str, form: str) -> int | None:
    """The number of texts in a file of lines or jsonl; None for standard input, other formats, and a file that cannot be read."""
    if path == "-" or form not in ("lines", "jsonl"):
        return None
    try:
        with opened(path, form) as (_, file):
            return sum(1 for _, _, line in lines(file, path) if line.strip())
    except DataError:
        return None


class _StandardInput:
    """Standard input whose `read` returns what is there, so that the first lines of a pipe need not wait for a megabyte."""

    def read(self, size: int) -> bytes:
        return cast(io.BufferedReader, sys.stdin.buffer).read1(size)


def _texts(file: BinaryIO, name: str, form: str, column: str, pair: str | None, empty: Counted) -> Iterator[Text]:
    if form in ("csv", "tsv"):
        yield from _csv_texts(file, Fields(name, column, "line", f".{form}"), pair, empty)
        return
    for number, offset, line in lines(file, name):
        origin = f"{name}:{number}"
        text = _valid(decoded(line, name, offset))
        if not text.strip():
            empty.add(origin)
        elif form == "lines":
            yield Text(origin, text.rstrip("\r\n"), None)
        else:
            values = json_object(text, origin)
            words = values.get("words")
            if isinstance(words, list) and all(isinstance(word, str) for word in words):
                yield Text(origin, " ".join(words), None, words)
                continue
            found = [_field(origin, values, key) for key in (column, pair) if key is not None]
            yield Text(origin, found[0], found[1] if pair is not None else None)


def _csv_texts(file: BinaryIO, fields: Fields, pair: str | None, empty: Counted) -> Iterator[Text]:
    rows = csv_format.rows(file, fields, empty.add)
    first = next(rows, None)
    header = first.values if first else []
    wanted = [fields.column] if pair is None else [fields.column, pair]
    for column in wanted:
        if header.count(column) != 1:
            got = f"columns {', '.join(header) or 'none'}" if column not in header else f"{header.count(column)} of that name"
            raise LaunchError(f"{fields.path}:1: expected a column {column}, got {got}; set --column or --pair-column")
    places = [header.index(column) for column in wanted]
    for row in rows:
        if row.invalid is not None:
            _valid(row.invalid)
        if len(row.values) != len(header):
            raise LaunchError(
                f"{row.origin}: expected {len(header)} fields, as the header has, got {len(row.values)}; quote the text of that row"
            )
        yield Text(row.origin, row.values[places[0]], None if pair is None else row.values[places[1]])


def _valid(text: str | InvalidText) -> str:
    if isinstance(text, InvalidText):
        raise LaunchError(f"{text.where}: expected UTF-8, got {text.reason}; repair the file")
    return text


def _field(origin: str, values: dict[str, object], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str):
        names = ", ".join(str(name) for name in values)
        got = repr(value) if key in values else "no such column"
        raise LaunchError(f"{origin}: expected a text in {key}, got {got}; columns: {names}")
    return value
