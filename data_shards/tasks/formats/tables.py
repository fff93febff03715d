"""Rows of csv, tsv, jsonl, parquet and `datasets`: the wanted columns of each row, and where the row is."""

import json
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from data_shards.errors import DataError
from data_shards.sources.files import ending
from data_shards.sources.formats import csv as csv_format
from data_shards.sources.formats.common import Fields, InvalidText, check_is_no_pointer, decoded, lines
from data_shards.sources.formats.jsonl import check_key_once, json_object
from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import dataset_rows, open_dataset
from data_shards.tasks.settings import TaskDataSettings, did_you_mean, hub_parts
from stillhouse.errors import one_line
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pa, pq = lazy_module("pyarrow"), lazy_module("pyarrow.parquet")


class Record(NamedTuple):
    """The wanted values of a row by role (text, label, …), and its place."""

    values: dict[str, Any]
    place: str


class Wanted(NamedTuple):
    """Columns by role. optional: roles that may be missing from a file; their values are then missing from its records."""

    columns: dict[str, str | int]
    optional: frozenset[str] = frozenset()


Rows = Iterator[Record | DataError]
"""Rows in the order of the file. A row that cannot be used is its error, and reading goes on behind it."""


def csv_rows(file: BinaryIO, path: str, settings: TaskDataSettings, wanted: Wanted) -> Rows:
    """Rows of csv or tsv, with or without a header."""
    tabs = ".tsv" if settings.format == "tsv" or (settings.format == "auto" and ending(path) == ".tsv") else ".csv"
    fields = Fields(path, "", "line", tabs, settings.separator, settings.quoting)
    rows = _csv_rows(file, fields)
    if settings.header:
        first = next(rows, None)
        header = first.values if first else []
        if not header:
            raise DataError(f"{path}: expected a header and rows, got an empty file; add rows")
        at = columns_of(path, header, wanted, csv_format.dialect(fields)[0])
        width = len(header)
    else:
        at, width = {}, 0
    for row in rows:
        if not width:
            width = len(row.values)
            at = columns_of(path, range(width), wanted)
        if len(row.values) != width:
            yield DataError(
                f"{row.origin}: expected {width} fields, as the first line has, got {len(row.values)}; "
                "repair the row, or set separator and quoting as the file has them"
            )
        elif row.invalid:
            yield _not_utf8(row.invalid)
        else:
            yield Record({role: row.values[index] for role, index in at.items()}, row.origin)
    if not width:
        raise DataError(f"{path}: expected rows, got an empty file; add rows")


def _csv_rows(file: BinaryIO, fields: Fields) -> Iterator[csv_format.Row]:
    """The rows of csv, with errors that name settings instead of options."""
    try:
        yield from csv_format.rows(file, fields)
    except DataError as error:
        raise DataError(str(error).replace("--quoting", "quoting")) from None


def columns_of(path: str, names: Iterable[Any], wanted: Wanted, separator: str | None = None) -> dict[str, int]:
    """The index of each wanted column. Raises DataError for a column that is not there, or there twice."""
    listed = list(names)
    at = {}
    for role, column in wanted.columns.items():
        if isinstance(column, int):
            if column < len(listed):
                at[role] = column
                continue
        elif listed.count(column) > 1:
            raise DataError(f"{path}: expected one column {column}, got {listed.count(column)}; rename one")
        elif column in listed:
            at[role] = listed.index(column)
            continue
        if role in wanted.optional:
            continue
        shown = ", ".join(f"{name!s:.40}" for name in listed[:20]) or "none"
        advice = f"set columns.{role.partition(':')[0]}"
        if isinstance(column, str) and listed and all(isinstance(name, int) for name in listed):
            advice += " to a number, as header is false"
        elif separator and len(listed) == 1 and any(mark in str(listed[0]) for mark in ",;\t|"):
            advice = f"set separator: the file has no {separator!r} between its columns"
        elif separator and isinstance(column, str):
            advice += ", or set header to false if the first line is a row"
        raise DataError(f"{path}: expected a column {column}, got columns {shown}{did_you_mean(column, listed)}; {advice}")
    return at


def json_rows(file: BinaryIO, path: str, wanted: Wanted) -> Rows:
    """Rows of JSON lines, or of one JSON list. A column that the first row lacks is an error of the file, later of the row."""
    first = True
    for number, offset, line in (all_lines := lines(file, path)):
        text = decoded(line, path, offset)
        place = f"{path}:{number}"
        if isinstance(text, InvalidText):
            yield _not_utf8(text)
            continue
        if not text.strip():
            continue
        if first and text.lstrip().startswith("["):
            yield from _listed_rows(text + "".join(_texts(all_lines, path)), path, wanted)
            return
        try:
            row = json_object(text, place)
        except DataError as error:
            yield DataError(str(error).replace("the source's kind (--kind)", "data.format"))
            continue
        yield from _json_row(row, text, path if first else place, place, wanted, first)
        first = False


def _json_row(row: dict[str, Any], text: str, where: str, place: str, wanted: Wanted, first: bool) -> Rows:
    """The record of an object, or its error. text: the object's JSON. Raises DataError if the first row lacks a column."""
    names = list(row)
    try:
        at = columns_of(where, names, wanted)
        for index in at.values():
            check_key_once(text, names[index], place)
    except DataError as error:
        if first:
            raise
        yield error
    else:
        yield Record({role: row[names[index]] for role, index in at.items()}, place)


def _listed_rows(content: str, path: str, wanted: Wanted) -> Rows:
    """Rows of a file that is one JSON list of objects. The place of a row is its number from 0."""
    try:
        listed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: expected JSON lines or a JSON list, got {one_line(error)[:200]}; repair the file") from None
    for number, row in enumerate(listed):
        place = f"{path}:{number}"
        if isinstance(row, dict):
            yield from _json_row(row, "", path if number == 0 else place, place, wanted, number == 0)
        else:
            yield DataError(f"{place}: expected an object in the JSON list, got {type(row).__name__}; repair the file")


def _texts(all_lines: Iterator[tuple[int, int, bytes]], path: str) -> Iterator[str]:
    """The lines as text. Raises DataError for a line that is not valid UTF-8."""
    for _, offset, line in all_lines:
        text = decoded(line, path, offset)
        if isinstance(text, InvalidText):
            raise _not_utf8(text)
        yield text


def parquet_rows(file: BinaryIO, path: str, wanted: Wanted) -> Rows:
    """Rows of a parquet file, a thousand at a time. The place of a row is its number from 0."""
    try:
        check_is_no_pointer(file, path)
        table = pq.ParquetFile(file)
        names = list(table.schema_arrow.names)
        at = columns_of(path, names, wanted)
        number = 0
        for batch in table.iter_batches(batch_size=1000, columns=sorted({names[index] for index in at.values()})):
            read = list(batch.schema.names)
            values = {role: batch.column(read.index(names[index])).to_pylist() for role, index in at.items()}
            for row in range(batch.num_rows):
                yield Record({role: column[row] for role, column in values.items()}, f"{path}:{number}")
                number += 1
    except (pa.ArrowException, UnicodeDecodeError) as error:
        raise DataError(f"{path}: expected a parquet file, got {one_line(error)[:200]}; repair or leave out the file") from None


def hub_rows(path: str, wanted: Wanted) -> Rows:
    """Rows of a `datasets` name. Numbers of a ClassLabel become its names; -1, which test splits have, becomes None."""
    name, config, split = hub_parts(path)
    rows = open_dataset(SourceSettings(path=name, kind="dataset", name=config, split=split, streaming=False))
    names = list(rows.column_names)
    at = columns_of(path, names, wanted)
    classes = {role: _class_names(rows.features[names[index]]) for role, index in at.items()}
    for number, row in enumerate(dataset_rows(rows, name)):
        values = {role: _named(row[names[index]], classes[role]) for role, index in at.items()}
        yield Record(values, f"{path}:{number}")


def _class_names(feature: Any) -> list[str] | None:
    """The names of a ClassLabel, or of a list of them; None for another feature."""
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) and feature else feature)
    names = getattr(inner, "names", None)
    return list(names) if names else None


def _named(value: Any, names: list[str] | None) -> Any:
    if names is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return [_named(one, names) for one in value]
    return None if value is None or value < 0 else names[value]


def _not_utf8(text: InvalidText) -> DataError:
    return DataError(f"{text.where}: expected UTF-8, got {text.reason}; repair the file, or set on_bad_row to drop")
