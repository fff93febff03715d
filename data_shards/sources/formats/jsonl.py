"""JSON lines: a document is one field of each line's object."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from data_shards.errors import DataError
from data_shards.sources.formats.common import (
    Fields,
    Format,
    Found,
    InvalidText,
    decoded,
    lines,
    missing_column,
    text_value,
    without_surrogates,
)

ADVICE = "repair the line, or set the source's kind (--kind)"


def read(file: BinaryIO, fields: Fields) -> Iterator[Found]:
    """One field of each line's JSON object; a null is an empty document."""
    for number, offset, line in lines(file, fields.path):
        origin = f"{fields.path}:{number}"
        valid = decoded(line, fields.path, offset)
        raw = valid.repaired if isinstance(valid, InvalidText) else valid
        if not raw.strip():
            continue
        text = json_field(raw, fields.column, origin)
        if isinstance(valid, InvalidText):
            yield InvalidText(valid.where, valid.reason, text), origin
        else:
            yield without_surrogates(text, f"{fields.path}, byte {offset}"), origin


def json_field(raw: str, column: str, origin: str) -> str:
    """The text in one field of a JSON object. Raises DataError for other content."""
    row = json_object(raw, origin)
    if column not in row:
        raise missing_column(origin, column, row)
    check_key_once(raw, column, origin)
    return text_value(row[column], origin, column)


def check_key_once(raw: str, column: str, origin: str) -> None:
    """Raises DataError for an object that has the field twice."""
    if raw.count(json.dumps(column)) > 1:  # seldom: in the text, in an inner object, or a repeated key
        keys: list[str] = []

        def pairs(entries: list[tuple[str, Any]]) -> None:
            keys[:] = [key for key, _ in entries]  # the outermost object is the last to end

        json.loads(raw, object_pairs_hook=pairs)
        if keys.count(column) > 1:
            raise DataError(f"{origin}: expected one field {column}, got {keys.count(column)}; {ADVICE}")


def json_object(raw: str, origin: str) -> dict[str, Any]:
    """The JSON object in a line. Raises DataError for other content."""
    row = _parsed(raw, origin)
    if not isinstance(row, dict):
        raise DataError(f"{origin}: expected one JSON object a line, got {type(row).__name__}; {ADVICE}")
    return row


def _parsed(raw: str, origin: str) -> Any:
    try:
        return json.loads(raw)
    except RecursionError:
        raise DataError(f"{origin}: expected one JSON object a line, got one that is nested too deeply; {ADVICE}") from None
    except ValueError as error:
        raise DataError(f"{origin}: expected one JSON object a line, got {error}; {ADVICE}") from None


FORMAT = Format("jsonl", (".jsonl", ".ndjson", ".json"), read)
