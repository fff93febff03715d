"""Documents of text: files, folders, globs, URLs and `datasets` names as one stream of documents with their origins.

Documents come in a fixed order (files sorted by path), one at a time. No more than one file's read buffer is in memory.
"""

import gzip
import lzma
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from fsspec.compression import compr

from data_shards.errors import DataError
from data_shards.sources.files import compression, ending, find_files
from data_shards.sources.formats import BY_KIND
from data_shards.sources.formats.common import Fields, InvalidText, missing_column, text_value
from data_shards.sources.settings import SourceSettings
from data_shards.storage.download import is_url, open_url
from stillhouse.errors import one_line
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    import datasets
else:
    datasets = lazy_module("datasets")


@dataclass
class SourceCounts:
    """Counts of the documents and bytes that were read so far."""

    invalid: int = 0
    """Documents that were not valid UTF-8 and were replaced or skipped."""
    bytes_read: int = 0
    """Of the files as they are stored, compressed or not."""


@dataclass(frozen=True)
class Document:
    """A text and its origin (file:line, file:row or file:byte)."""

    text: str
    origin: str


def documents(settings: SourceSettings, counts: SourceCounts | None = None) -> Iterator[Document]:
    """The documents of a source, empty ones among them. Raises DataError on a missing file, a wrong column or invalid UTF-8."""
    counts = SourceCounts() if counts is None else counts
    if settings.kind == "dataset":
        yield from _dataset(settings)
        return
    for path, kind in find_files(settings).files:
        yield from _file(settings, path, kind, counts)


def _file(settings: SourceSettings, path: str, kind: str, counts: SourceCounts) -> Iterator[Document]:
    """The documents of one file."""
    before = counts.bytes_read
    with opened(path, kind) as (stored, content):
        fields = Fields(path, settings.column, settings.per, ending(path), settings.separator, settings.quoting, settings.member)
        for number, origin in BY_KIND[kind].read(content, fields):
            yield from _decoded(number, origin, settings, counts)
            if stored.seekable():
                counts.bytes_read = before + stored.tell()


@contextmanager
def opened(path: str, kind: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """(the file or URL as it is stored, its decompressed content). Raises DataError, naming the kind, for what cannot be read."""
    try:
        with open_url(path) if is_url(path) else open(path, "rb") as stored:
            name = compression(path)
            yield stored, cast(BinaryIO, compr[name](stored, mode="rb")) if name else stored
    except KeyError as error:  # fsspec has no decompressor of that name
        raise DataError(f"{path}: expected the package zstandard for {error}, got none; pip install zstandard") from None
    except FileNotFoundError:
        raise DataError(f"{path}: expected a file, got none; check the path") from None
    except (OSError, EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError, tarfile.TarError, ValueError) as error:
        raise DataError(f"{path}: expected a readable {kind} file, got {one_line(error)}; repair or leave out the file") from None


def _decoded(text: str | InvalidText, origin: str, settings: SourceSettings, counts: SourceCounts) -> Iterator[Document]:
    if isinstance(text, str):
        yield Document(text, origin)
    elif settings.invalid_utf8 == "error":
        raise DataError(
            f"{text.where}: expected UTF-8, got {text.reason}; "
            "repair the file, or set the source's invalid_utf8 (--invalid-utf8) to replace or skip"
        )
    else:
        counts.invalid += 1
        if settings.invalid_utf8 == "replace":
            yield Document(text.repaired, origin)


def _dataset(settings: SourceSettings) -> Iterator[Document]:
    """The texts of a `datasets` name, of a folder of files it can read, or of a folder it has saved."""
    rows = open_dataset(settings)
    columns = rows.column_names
    if columns is not None and settings.column not in columns:
        raise missing_column(f"dataset {settings.path}", settings.column, columns)
    for number, row in enumerate(dataset_rows(rows, settings.path)):
        origin = f"dataset {settings.path}:{number}"
        yield Document(text_value(row.get(settings.column), origin, settings.column), origin)


def open_dataset(settings: SourceSettings) -> Any:
    """The `datasets` object of one split. Raises DataError when there is none."""
    try:
        load_dataset, load_from_disk, splits_type = datasets.load_dataset, datasets.load_from_disk, datasets.DatasetDict
    except ImportError as error:
        raise DataError(f"{settings.path}: expected the package datasets, got {one_line(error)}; pip install datasets") from None
    try:
        folder = Path(settings.path).expanduser()
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            rows = load_from_disk(str(folder))
            rows = rows[settings.split] if isinstance(rows, splits_type) else rows
        else:
            rows = load_dataset(settings.path, settings.name, split=settings.split, streaming=settings.streaming)
        return rows
    except Exception as error:  # datasets and its hub raise a dozen types for "there is none"
        raise DataError(
            f"dataset {settings.path}: expected a dataset with split {settings.split}, got {one_line(error)[:200]}; "
            "check path, name and split, and the network"
        ) from None


def dataset_rows(rows: Any, path: str) -> Iterator[dict[str, Any]]:
    """The rows of a `datasets` object. Raises DataError for what the hub or a file raises meanwhile."""
    try:
        yield from rows
    except Exception as error:  # a hub's failures have many types
        raise DataError(f"dataset {path}: expected rows, got {one_line(error)[:200]}; check the data and the network") from None
