"""webdataset tars: a document is one member of each sample, such as `txt`, or a field of it, such as `json:text`."""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

from data_shards.errors import DataError
from data_shards.sources.formats.common import Fields, Format, Found, InvalidText, decoded, missing_column, without_surrogates
from data_shards.sources.formats.jsonl import json_field
from stillhouse.errors import one_line
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    import zstandard
    from webdataset import tariterators
else:
    tariterators, zstandard = lazy_module("webdataset.tariterators"), lazy_module("zstandard")

DECOMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".bz2": bz2.decompress,
    ".xz": lzma.decompress,
}
BLOCK_BYTES = 512  # of zeros end a tar


def read(file: BinaryIO, fields: Fields) -> Iterator[Found]:
    """The text of each sample of a tar, in its order. Raises DataError for a sample without it; no sample is skipped."""
    member, _, field = fields.member.partition(":")
    try:
        for sample in _samples(file, fields.path):
            origin = f"{fields.path}: {sample['__key__']}"
            ending = next((ending for ending in (*DECOMPRESS, ".zst") if f"{member}{ending}" in sample), None)
            if ending is None:
                names = [name for name in sample if not name.startswith("__")]
                raise missing_column(origin, member, names, "set the source's member (--text)")
            text = decoded(_decompressed(sample[f"{member}{ending}"], ending, origin), origin, 0)
            if not field:
                yield text, origin
                continue
            if isinstance(text, InvalidText):
                yield InvalidText(text.where, text.reason, json_field(text.repaired, field, origin)), origin
            else:
                yield without_surrogates(json_field(text, field, origin), origin), origin
    except tarfile.TarError as error:
        raise DataError(f"{fields.path}: expected a tar, got {one_line(error)}; repair or leave out the file") from None


def _samples(file: BinaryIO, path: str) -> Iterator[dict[str, Any]]:
    """webdataset's own grouping of a tar's members; every error is raised."""
    stream = _Tail(file)
    members = tariterators.tar_file_expander([{"url": path, "stream": stream}])
    yield from tariterators.group_by_keys(members)
    stream.check(path)


class _Tail:
    """A tar being read, with its last bytes: Python's tarfile takes one that is cut between two members for a whole one."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._last = b""

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(size)
        self._last = (self._last + content[-BLOCK_BYTES:])[-BLOCK_BYTES:]
        return content

    def check(self, path: str) -> None:
        """Raises DataError unless zeros end the tar, and nothing but zeros follows."""
        while not any(self._last) and self.read(1 << 16):
            pass
        if any(self._last) or len(self._last) < BLOCK_BYTES:
            raise DataError(f"{path}: expected the end of the tar, got none; it is cut short, or several tars in one: write it again")


def _decompressed(content: bytes, ending: str, origin: str) -> bytes:
    try:
        if ending == ".zst":
            return zstandard.ZstdDecompressor().decompressobj().decompress(content)
        return DECOMPRESS[ending](content)
    except ImportError:
        raise DataError(f"{origin}: expected the package zstandard, got none; pip install zstandard") from None
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{origin}: expected {ending} content, got {one_line(error)}; repair or leave out the file") from None


FORMAT = Format("webdataset", (".tar", ".tgz"), read, by_ending=False)
