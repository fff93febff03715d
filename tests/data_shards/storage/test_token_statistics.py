"""vocabulary.npz: the same bytes for the same arrays, and no other arrays."""

import io

import numpy as np
import pytest

from data_shards.errors import DataError
from data_shards.storage.location import Location
from data_shards.storage.manifest import Manifest, SidecarEntry
from data_shards.storage.token_statistics import VOCABULARY, TokenStatistics
from stillhouse.files import sha256_of_file


def test_the_vocabulary_is_read_back_and_counts_the_train_split(tmp_path, make_shards):
    manifest = make_shards(tmp_path, [[10, 11, 10], [610]], [[10, 12]])
    vocabulary = TokenStatistics.load(Location.of(tmp_path), manifest)
    assert {index: int(count) for index, count in enumerate(vocabulary.counts) if count} == {10: 2, 11: 1, 610: 1}
    assert np.flatnonzero(vocabulary.is_special).tolist() == [0, 1, 2, 3, 4]
    assert np.flatnonzero(vocabulary.is_continuation).tolist() == list(range(600, 700))
    assert vocabulary.mask_id == 4
    assert vocabulary.content() == (tmp_path / VOCABULARY).read_bytes()
    assert vocabulary.counts.dtype == np.uint64


def replaced(folder, manifest: Manifest, content: bytes) -> Manifest:
    (folder / VOCABULARY).write_bytes(content)
    entry = SidecarEntry(bytes=len(content), sha256=sha256_of_file(folder / VOCABULARY))
    return manifest.model_copy(update={"sidecars": {**manifest.sidecars, VOCABULARY: entry}})


def test_other_arrays_are_one_line(tmp_path, make_shards):
    manifest = make_shards(tmp_path, [[10]])
    short, pickled, partial = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.savez(short, counts=np.zeros(3, np.uint64), is_special=np.zeros(3, bool), is_continuation=np.zeros(3, bool))
    np.savez(pickled, counts=np.array([{}], object), is_special=np.zeros(3, bool), is_continuation=np.zeros(3, bool))
    np.savez(partial, counts=np.zeros(700, np.uint64))
    for content, line in (
        (short.getvalue(), "got a file that does not hold 700 numbers of uint64 in one dimension"),
        (pickled.getvalue(), "got a file that does not hold 700 numbers of uint64"),
        (partial.getvalue(), "is_special"),
        (b"not a zip", "expected counts, is_special and is_continuation, got"),
    ):
        with pytest.raises(DataError, match=line) as error:
            TokenStatistics.load(Location.of(tmp_path), replaced(tmp_path, manifest, content))
        assert "\n" not in str(error.value)
