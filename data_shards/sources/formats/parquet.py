"""Parquet: a document per row."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from data_shards.errors import DataError
from data_shards.sources.formats.common import Fields, Format, Found, check_is_no_pointer, decoded, missing_column
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq
else:
    pa, pq = lazy_module("pyarrow"), lazy_module("pyarrow.parquet")


def read(file: BinaryIO, fields: Fields) -> Iterator[Found]:
    """One column of a parquet file, a thousand rows at a time. Strings may be dictionary-encoded or views; a null is an empty document."""
    try:
        check_is_no_pointer(file, fields.path)
        table = pq.ParquetFile(file)
        names = table.schema_arrow.names
        if fields.column not in names:
            raise missing_column(fields.path, fields.column, names)
        if names.count(fields.column) > 1:
            raise DataError(
                f"{fields.path}: expected one column {fields.column}, got {names.count(fields.column)} of that name; rename one"
            )
        kind = table.schema_arrow.field(fields.column).type
        if not _is_text(kind):
            raise DataError(f"{fields.path}: expected text in column {fields.column}, got {kind}; choose another column")
        number = 0
        for batch in table.iter_batches(batch_size=1000, columns=[fields.column]):
            # a name with a dot may select a field of a struct as well
            for value in _bytes(batch.column(batch.schema.names.index(fields.column))):
                origin = f"{fields.path}:{number}"
                yield decoded(value or b"", origin, 0), origin
                number += 1
    except pa.ArrowException as error:
        raise DataError(
            f"{fields.path}: expected a parquet file, got {' '.join(str(error).split())}; repair or leave out the file"
        ) from None


def _is_text(kind: Any) -> bool:
    """True for a type of text: strings, bytes, their views and dictionaries, or nulls alone."""
    types = pa.types
    kind = kind.value_type if types.is_dictionary(kind) else kind
    strings = (types.is_string, types.is_large_string, types.is_string_view)
    return any(test(kind) for test in (*strings, types.is_binary, types.is_large_binary, types.is_binary_view, types.is_null))


def _bytes(column: "pa.Array") -> list[bytes | None]:
    """The values of a column of text, as UTF-8."""
    if pa.types.is_null(column.type):
        return [None] * len(column)
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    return column.cast(pa.large_binary()).to_pylist()


FORMAT = Format("parquet", (".parquet", ".pq"), read)
