"""Where text comes from: files, folders, globs, URLs and `datasets` names, as one stream of documents with their origins.

Documents come in a fixed order (files sorted by path), one at a time; nothing here keeps more than one file's read buffer.
"""

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Any, BinaryIO, Literal, cast

import fsspec
from fsspec.compression import compr
from pydantic import BaseModel, ConfigDict

from data_shards.errors import DataError
from data_shards.sources.text_formats import FORMATS, Fields, InvalidText, missing_column
from data_shards.storage.location import is_url, open_url
from stillhouse.errors import one_line

Kind = Literal["auto", "text", "jsonl", "parquet", "csv", "dataset"]
EXTENSIONS: dict[str, str] = {
    **dict.fromkeys((".txt", ".text", ".md"), "text"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "jsonl"),
    **dict.fromkeys((".parquet", ".pq"), "parquet"),
    **dict.fromkeys((".csv", ".tsv"), "csv"),
}
COMPRESSIONS = {".gz": "gzip", ".bz2": "bz2", ".xz": "xz", ".zst": "zstd"}


class SourceSettings(BaseModel):
    """One place that text is read from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    path: str
    """A file, a folder, a glob, a URL; for kind dataset a hub name or a local folder."""
    kind: Kind = "auto"
    """auto: by the file's extension; a compressed file (.gz, .bz2, .xz, .zst) by the one before."""
    column: str = "text"
    """The field that holds the text; plain text has none."""
    per: Literal["file", "line", "paragraph"] = "line"
    """What a document of plain text is; paragraphs are separated by empty lines."""
    name: str | None = None
    """For kind dataset: its configuration."""
    split: str = "train"
    streaming: bool = True
    invalid_utf8: Literal["error", "replace", "skip"] = "error"


@dataclass
class SourceCounts:
    """What reading has met so far."""

    invalid: int = 0
    """Documents that were not valid UTF-8 and were replaced or skipped."""
    bytes_read: int = 0
    """Of the files as they are stored, compressed or not."""


@dataclass(frozen=True)
class Document:
    """A text, and where it stood (file:line, file:row or file:byte)."""

    text: str
    origin: str


def documents(settings: SourceSettings, counts: SourceCounts | None = None) -> Iterator[Document]:
    """The documents of a source, empty ones among them. Raises DataError on a missing file, a wrong column or invalid UTF-8."""
    counts = SourceCounts() if counts is None else counts
    if settings.kind == "dataset":
        yield from _dataset(settings)
        return
    for path, kind in files(settings):
        yield from _file(settings, path, kind, counts)


def files(settings: SourceSettings) -> list[tuple[str, str]]:
    """The files of a source and their kinds, sorted by path. Raises DataError when there is none."""
    path = settings.path
    if is_url(path):
        return [(found, _kind(settings, found)) for found in _remote_files(path)]
    place = Path(path).expanduser()
    if place.is_file():
        return [(str(place), _kind(settings, str(place)))]
    if place.is_dir():
        inside = sorted(p for p in place.rglob("*") if p.is_file() and not any(part.startswith(".") for part in p.relative_to(place).parts))
        if settings.kind == "auto":
            inside = [p for p in inside if _extension(p.name) in EXTENSIONS]
        elif settings.kind != "text":
            inside = [p for p in inside if EXTENSIONS.get(_extension(p.name)) == settings.kind]
        if not inside:
            wanted = "files that end in " + ", ".join(EXTENSIONS) if settings.kind == "auto" else f"files of kind {settings.kind}"
            raise DataError(f"{path}: expected a folder with {wanted}, got none; add files, or set the source's kind")
        return [(str(p), _kind(settings, p.name)) for p in inside]
    if has_magic(path):
        found = sorted(name for name in glob(str(place), recursive=True) if Path(name).is_file())
        if found:
            return [(name, _kind(settings, name)) for name in found]
        raise DataError(f"{path}: expected files that match, got none; correct the pattern")
    raise DataError(
        f"{path}: expected a file, a folder or a glob, got nothing there; correct the path (a `datasets` name needs kind: dataset)"
    )


def total_bytes(sources: list[SourceSettings]) -> int | None:
    """Stored bytes of all files, or None where that is not known before reading."""
    if any(source.kind == "dataset" or is_url(source.path) for source in sources):
        return None
    return sum(Path(path).stat().st_size for source in sources for path, _ in files(source))


def _kind(settings: SourceSettings, path: str) -> str:
    return settings.kind if settings.kind != "auto" else EXTENSIONS.get(_extension(path), "text")


def _extension(path: str) -> str:
    """The extension that tells the kind: that of the file inside a compressed one."""
    name = Path(path.split("?")[0])
    return (Path(name.stem).suffix if name.suffix in COMPRESSIONS else name.suffix).lower()


def _remote_files(url: str) -> list[str]:
    if url.startswith(("http://", "https://")):
        return [url]
    try:
        system, place = fsspec.core.url_to_fs(url)
        found = sorted(system.glob(place) if has_magic(place) else system.find(place))
        return [system.unstrip_protocol(path) for path in found] or [url]
    except (OSError, ImportError, ValueError) as error:
        raise DataError(f"{url}: expected files that can be listed, got {one_line(error)}; check the URL") from None


def _file(settings: SourceSettings, path: str, kind: str, counts: SourceCounts) -> Iterator[Document]:
    """The documents of one file."""
    before = counts.bytes_read
    try:
        with open_url(path) if is_url(path) else open(path, "rb") as stored:
            compression = COMPRESSIONS.get(Path(path.split("?")[0]).suffix)
            content = cast(BinaryIO, compr[compression](stored, mode="rb")) if compression else stored
            for number, origin in FORMATS[kind](content, Fields(path, settings.column, settings.per)):
                yield from _decoded(number, origin, settings, counts)
                if stored.seekable():
                    counts.bytes_read = before + stored.tell()
    except KeyError as error:  # fsspec has no decompressor of that name
        raise DataError(f"{path}: expected a compression that is installed, got {error}; install it, or decompress the file") from None
    except FileNotFoundError:
        raise DataError(f"{path}: expected a file, got none; check the path") from None
    except (OSError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise DataError(f"{path}: expected a readable {kind} file, got {one_line(error)}; repair or leave out the file") from None


def _decoded(text: str | InvalidText, origin: str, settings: SourceSettings, counts: SourceCounts) -> Iterator[Document]:
    if isinstance(text, str):
        yield Document(text, origin)
    elif settings.invalid_utf8 == "error":
        raise DataError(
            f"{text.where}: expected UTF-8, got {text.reason}; repair the file, or set the source's invalid_utf8 to replace or skip"
        )
    else:
        counts.invalid += 1
        if settings.invalid_utf8 == "replace":
            yield Document(text.repaired, origin)


def _dataset(settings: SourceSettings) -> Iterator[Document]:
    """The rows of a `datasets` name, of a folder of files it can read, or of a folder it has saved."""
    try:
        import datasets  # noqa: PLC0415 - a second of start-up that only this kind pays
    except ImportError as error:
        raise DataError(f"{settings.path}: expected the package datasets, got {one_line(error)}; pip install datasets") from None
    try:
        folder = Path(settings.path).expanduser()
        if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
            rows = datasets.load_from_disk(str(folder))
            rows = rows[settings.split] if isinstance(rows, datasets.DatasetDict) else rows
        else:
            rows = datasets.load_dataset(settings.path, settings.name, split=settings.split, streaming=settings.streaming)
        columns = rows.column_names
    except Exception as error:  # datasets and its hub raise a dozen types for "there is none"
        raise DataError(
            f"dataset {settings.path}: expected a dataset with split {settings.split}, got {one_line(error)[:200]}; "
            "check path, name and split, and the network"
        ) from None
    if columns is not None and settings.column not in columns:
        raise missing_column(f"dataset {settings.path}", settings.column, columns)
    for number, row in enumerate(_rows(rows, settings.path)):
        text, origin = row.get(settings.column), f"dataset {settings.path}:{number}"
        if text is not None and not isinstance(text, str):
            raise DataError(f"{origin}: expected text in column {settings.column}, got {type(text).__name__}; choose another column")
        yield Document(text or "", origin)


def _rows(rows: Any, path: str) -> Iterator[dict[str, Any]]:
    try:
        yield from rows
    except Exception as error:  # a hub's failures have many types
        raise DataError(f"dataset {path}: expected rows, got {one_line(error)[:200]}; check the data and the network") from None
