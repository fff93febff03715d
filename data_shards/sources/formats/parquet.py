"""Parquet: a document per row."""

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from data_shards.errors import DataError
from data_shards.sources.formats.common import Fields, Format, Found, decoded, missing_column

TEXT_TYPES = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_binary, pa.types.is_large_binary)


def read(file: BinaryIO, fields: Fields) -> Iterator[Found]:
    """One column of a parquet file, a thousand rows at a time. Strings may be dictionary-encoded or views; a null is an empty document."""
    try:
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        if fields.column not in names:
            raise missing_column(fields.path, fields.column, names)
        if names.count(fields.column) > 1:
            raise DataError(
                f"{fields.path}: expected one column {fields.column}, got {names.count(fields.column)} of that name; rename one"
            )
        kind = table.schema_arrow.field(fields.column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not pa.types.is_null(kind) and not any(test(kind) for test in TEXT_TYPES):
            raise DataError(f"{fields.path}: expected text in column {fields.column}, got {kind}; choose another column")
        number = 0
        for batch in table.iter_batches(batch_size=1000, columns=[fields.column]):
            for value in _bytes(batch.column(0)):
                origin = f"{fields.path}:{number}"
                yield decoded(value or b"", origin, 0), origin
                number += 1
    except pa.ArrowException as error:
        raise DataError(
            f"{fields.path}: expected a parquet file, got {' '.join(str(error).split())}; repair or leave out the file"
        ) from None


def _bytes(column: pa.Array) -> list[bytes | None]:
    """The values of a column of text, as UTF-8."""
    if pa.types.is_null(column.type):
        return [None] * len(column)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_string_view(column.type):
        column = column.cast(pa.large_string())
    return column.cast(pa.large_binary()).to_pylist()


FORMAT = Format("parquet", (".parquet", ".pq"), read)
