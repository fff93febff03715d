"""JSON lines: a document per line."""

import json
from collections.abc import Iterator
from typing import Any, BinaryIO

from data_shards.errors import DataError
from data_shards.sources.formats.common import Fields, Format, Found, InvalidText, decoded, lines, missing_column


def read(file: BinaryIO, fields: Fields) -> Iterator[Found]:
    """One field of each line's JSON object. A null is an empty document."""
    advice = "repair the line, or set the source's kind"
    for number, offset, line in lines(file, fields.path):
        origin = f"{fields.path}:{number}"
        valid = decoded(line, fields.path, offset)
        raw = valid.repaired if isinstance(valid, InvalidText) else valid
        if not raw.strip():
            continue
        try:
            row = json.loads(raw)
        except RecursionError:
            raise DataError(f"{origin}: expected one JSON object a line, got one that is nested too deeply; {advice}") from None
        except ValueError as error:
            raise DataError(f"{origin}: expected one JSON object a line, got {error}; {advice}") from None
        if not isinstance(row, dict):
            raise DataError(f"{origin}: expected one JSON object a line, got {type(row).__name__}; {advice}")
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


FORMAT = Format("jsonl", (".jsonl", ".ndjson", ".json"), read)
