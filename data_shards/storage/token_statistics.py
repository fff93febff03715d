"""Statistics of each token id, which masks need: vocabulary.npz, read and written without pickle."""

import io
import zipfile
import zlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import DataError
from data_shards.storage.location import Location
from data_shards.storage.manifest import Manifest
from data_shards.storage.tar_format import npy_array, npy_header

VOCABULARY = "vocabulary.npz"
ARRAYS = {"counts": np.dtype("<u8"), "is_special": np.dtype("?"), "is_continuation": np.dtype("?")}


@dataclass(frozen=True)
class TokenStatistics:
    """V ids.

    counts: uint64 [V], the count of each id in the train split. is_special, is_continuation: bool [V].
    mask_id: the id that hides a token.
    """

    counts: NDArray[np.uint64]
    is_special: NDArray[np.bool_]
    is_continuation: NDArray[np.bool_]
    mask_id: int

    @classmethod
    def load(cls, location: Location, manifest: Manifest) -> "TokenStatistics":
        """The statistics of a shard folder. Raises DataError when the file does not keep the manifest's promise."""
        where = location.where(VOCABULARY)
        size = manifest.vocabulary_size
        try:
            with zipfile.ZipFile(io.BytesIO(manifest.sidecar(location, VOCABULARY))) as archive:
                arrays = {name: _member(archive, f"{name}.npy", dtype, size) for name, dtype in ARRAYS.items()}
        except (KeyError, ValueError, OSError, EOFError, NotImplementedError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
            got = " ".join(str(error).split())
            raise DataError(f"{where}: expected counts, is_special and is_continuation, got {got}; build the shards again") from None
        return cls(**arrays, mask_id=manifest.mask_id)

    def content(self) -> bytes:
        """The bytes of vocabulary.npz: the same for the same arrays, whenever they are written."""
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ARRAYS:
                array = io.BytesIO()
                np.lib.format.write_array(array, getattr(self, name), version=(1, 0), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue())
        return target.getvalue()


def _member(archive: zipfile.ZipFile, name: str, dtype: np.dtype[Any], size: int) -> NDArray[Any]:
    """One array of an .npz, never more of it than it may hold."""
    most = len(npy_header(size, dtype)) + size * dtype.itemsize
    with archive.open(name) as file:
        return npy_array(file.read(most + 1), dtype, size)


def check_ordinary_tokens(statistics: TokenStatistics, where: str) -> None:
    """Raises DataError for shards with special tokens only, such as [UNK]. A model cannot learn from them."""
    if not statistics.counts[~statistics.is_special].any():
        raise DataError(
            f"{where}: expected shards with ordinary tokens, got special tokens only, such as [UNK]; "
            "build the shards again with the tokenizer files of the model"
        )
