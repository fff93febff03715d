"""What the masks need to know about each id of the vocabulary: vocabulary.npz, read and written without pickle."""

import io
import zipfile
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import DataError
from data_shards.location import Location
from data_shards.manifest import Manifest

VOCABULARY = "vocabulary.npz"


@dataclass(frozen=True)
class Vocabulary:
    """V ids.

    counts: uint64 [V], how often each stands in the train split. is_special, is_continuation: bool [V].
    mask_id: the id that hides a token.
    """

    counts: NDArray[np.uint64]
    is_special: NDArray[np.bool_]
    is_continuation: NDArray[np.bool_]
    mask_id: int

    @classmethod
    def load(cls, location: Location, manifest: Manifest) -> "Vocabulary":
        """The vocabulary of a shard folder. Raises DataError when the file does not keep the manifest's promise."""
        where = location.where(VOCABULARY)
        arrays = manifest.sidecar(location, VOCABULARY)
        try:
            with np.load(io.BytesIO(arrays), allow_pickle=False) as file:
                counts, is_special, is_continuation = (file[name] for name in ("counts", "is_special", "is_continuation"))
        except (KeyError, ValueError, OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{where}: expected counts, is_special and is_continuation, got {error}; build the shards again") from None
        size = manifest.vocabulary_size
        if any(array.shape != (size,) for array in (counts, is_special, is_continuation)):
            raise DataError(f"{where}: expected one entry for each of {size} ids, got {counts.shape}; build the shards again")
        return cls(counts.astype(np.uint64), is_special.astype(np.bool_), is_continuation.astype(np.bool_), manifest.mask_id)

    def content(self) -> bytes:
        """The bytes of vocabulary.npz: the same for the same arrays, whenever they are written."""
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in ("counts", "is_special", "is_continuation"):
                array = io.BytesIO()
                np.lib.format.write_array(array, getattr(self, name), version=(1, 0), allow_pickle=False)
                archive.writestr(zipfile.ZipInfo(f"{name}.npy"), array.getvalue())
        return target.getvalue()
