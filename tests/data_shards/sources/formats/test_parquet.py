"""Parquet as other tools write it."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_shards.errors import DataError
from data_shards.sources.settings import SourceSettings
from data_shards.sources.sources import documents

TEXTS = ["alpha", "", "alpha", "gämma"]


def read(path, **settings) -> list[str]:
    return [document.text for document in documents(SourceSettings(path=str(path), **settings))]


@pytest.mark.parametrize(
    "kind",
    [
        *(pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary_view()),
        *(pa.dictionary(pa.int32(), pa.string()), pa.dictionary(pa.int8(), pa.large_string()), pa.dictionary(pa.int16(), pa.binary())),
    ],
    ids=str,
)
def test_every_type_of_text_is_read(tmp_path, kind):
    values = pa.array([None, *TEXTS])
    dictionary = pa.types.is_dictionary(kind)
    column = values.cast(kind.value_type).dictionary_encode().cast(kind) if dictionary else values.cast(kind)
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet", row_group_size=2)
    assert read(tmp_path) == ["", *TEXTS]


def test_a_part_with_nulls_only_gives_empty_documents(tmp_path):
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": pa.nulls(2)}), tmp_path / "b.parquet")
    assert read(tmp_path) == [*TEXTS, "", ""]


def test_a_column_that_stands_twice_is_named(tmp_path):
    pq.write_table(pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["text", "text"]), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"a\.parquet: expected one column text, got 2 of that name; rename one"):
        read(tmp_path)


def test_a_column_with_a_dot_in_its_name_is_read_beside_a_struct(tmp_path):
    table = pa.table({"meta": [{"text": "inner"}], "meta.text": ["outer"], "n": [1]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert read(tmp_path, column="meta.text") == ["outer"]


@pytest.mark.parametrize(
    "column",
    [pa.array([1]), pa.array([["a"]]), pa.array([1]).dictionary_encode(), pa.array([{"a": "b"}])],
    ids=lambda column: str(column.type),
)
def test_other_types_are_refused_by_name(tmp_path, column):
    pq.write_table(pa.table({"text": column}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="expected text in column text, got "):
        read(tmp_path)
