"""One shard: random access, and every kind of damage named by shard and key."""

import errno

import numpy as np
import pytest

from data_shards.errors import DamagedFile, DataError
from data_shards.storage.manifest import Manifest
from data_shards.storage.shard import Shard


@pytest.fixture
def folder(tmp_path, make_shards, random_documents):
    make_shards(tmp_path, random_documents(30, seed=4), block_tokens=60, shard_tokens=250)
    return tmp_path


@pytest.fixture
def entry(folder):
    return Manifest.load(folder).entries("train")[0]


def test_documents_are_read_back(folder, random_documents):
    documents = iter(random_documents(30, seed=4))
    for entry in Manifest.load(folder).entries("train"):
        shard = Shard.open(folder, entry)
        for index in range(entry.documents):
            assert shard.document(index).tolist() == next(documents)


def test_tokens_are_read_at_any_places_across_blocks(folder, entry, random_documents):
    shard = Shard.open(folder, entry)
    whole = [token for document in random_documents(30, seed=4) for token in document][: entry.tokens]
    assert len(shard.blocks) > 2
    places = np.array([[entry.tokens - 1, 0], [59, 60], [119, 120]])
    assert shard.tokens(places).tolist() == np.array(whole)[places].tolist()


def test_a_flipped_byte_names_shard_and_key(folder, entry):
    path = folder / entry.name
    block = Shard.open(folder, entry).blocks[1]
    for at, kind in ((block.tokens_at + 5, "tokens"), (block.lengths_at + 1, "lengths")):
        content = bytearray(path.read_bytes())
        content[at] ^= 0x10
        path.write_bytes(content)
        with pytest.raises(
            DataError, match=rf"train-000000\.tar, key 000000-00001: expected the tokens that were written, got {kind}"
        ) as error:
            Shard.open(folder, entry)
        assert "\n" not in str(error.value)
        content[at] ^= 0x10
        path.write_bytes(content)


def test_a_byte_flipped_in_a_header_is_found_too(folder, entry):
    path = folder / entry.name
    content = bytearray(path.read_bytes())
    content[Shard.open(folder, entry).blocks[1].tokens_at - 128 - 512] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"got a broken header at byte \d+ .*; the last whole key is 000000-00000"):
        Shard.open(folder, entry)


def test_a_byte_flipped_in_the_padding_is_found_by_the_sha256(folder, entry):
    path = folder / entry.name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"expected sha256 .* got other bytes between the blocks"):
        Shard.open(folder, entry)


def test_a_truncated_shard_names_the_last_whole_key_even_unverified(folder, entry):
    path = folder / entry.name
    keep = Shard.open(folder, entry).blocks[2].tokens_at + 3
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(
        DataError, match=rf"a file that ends too early.*\({keep} bytes of {entry.bytes}\); the last whole key is 000000-00001"
    ):
        Shard.open(folder, entry, verify=False)


def test_an_emptied_shard_is_one_line(folder, entry):
    (folder / entry.name).write_bytes(b"")
    with pytest.raises(DataError, match=r"train-000000\.tar: expected a shard of \d+ bytes, got"):
        Shard.open(folder, entry)


def test_a_missing_shard_is_one_line(folder, entry):
    (folder / entry.name).unlink()
    with pytest.raises(DataError, match=r"train-000000\.tar: expected a file of \d+ bytes, got none; bring it back"):
        Shard.open(folder, entry)


def test_a_shard_of_another_dtype_is_refused(folder, entry):
    with pytest.raises(DataError, match=r"000000-00000\.tokens\.npy that does not hold \d+ numbers of uint32"):
        Shard.open(folder, entry, dtype="uint32")


def test_a_process_that_may_open_no_more_files_says_nothing_about_the_shard(folder, entry, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(np, "memmap", full)
    with pytest.raises(DataError, match=r"got \[Errno 24\] Too many open files; see its permissions and the limits") as error:
        Shard.open(folder, entry)
    assert not isinstance(error.value, DamagedFile), "which on_corrupt=skip would pass over"


def test_a_process_without_addresses_for_a_shard_says_that_it_lacks_memory(folder, entry, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(np, "memmap", full)
    with pytest.raises(MemoryError, match=rf"train-000000\.tar: could not allocate {entry.bytes} bytes"):
        Shard.open(folder, entry)
