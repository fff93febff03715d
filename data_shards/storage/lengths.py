"""Document lengths of a split: lengths-SPLIT.npy, written from the shards and read without evaluating its header."""

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import DataError
from data_shards.storage.location import Location
from data_shards.storage.manifest import Manifest
from data_shards.storage.shard import LENGTHS
from data_shards.storage.tar_format import npy_array


def lengths_name(split: str) -> str:
    """The name of the file with the lengths of a split."""
    return f"lengths-{split}.npy"


def read_lengths(location: Location, manifest: Manifest, split: str) -> NDArray[np.uint32]:
    """Tokens of each document of a split, in order: uint32 [documents].

    Raises DataError when the file does not keep the manifest's promise.
    """
    content = manifest.sidecar(location, lengths_name(split))
    try:
        return npy_array(content, LENGTHS, manifest.documents(split))
    except ValueError as error:
        where = location.where(lengths_name(split))
        raise DataError(f"{where}: expected the lengths of {split}, got {error}; build the shards again") from None
