"""verify proves every promise: each kind of lie is found."""

import json
import shutil

import numpy as np
import pytest

from data_shards.errors import DataError
from data_shards.info import info
from data_shards.storage.manifest import Manifest
from data_shards.storage.token_statistics import TokenStatistics
from data_shards.stream.bucketed import BucketedDocuments
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from data_shards.verify import verify
from stillhouse.files import sha256_of_file


@pytest.fixture
def folder(shards, tmp_path):
    shutil.copytree(shards, tmp_path / "copy")
    return tmp_path / "copy"


def lie(folder, change) -> None:
    """Rewrite the manifest after a change, with the sidecars' hashes as they now are."""
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, entry in manifest["sidecars"].items():
        entry |= {"bytes": (folder / name).stat().st_size, "sha256": sha256_of_file(folder / name)}
    del manifest["digest"]  # a liar's manifest has none, or a right one
    change(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_a_good_folder_is_counted(shards, random_documents):
    report = verify(shards)
    documents = [*random_documents(120, seed=1), *random_documents(9, seed=2)]
    assert (report.documents, report.tokens) == (129, sum(map(len, documents)))
    manifest = Manifest.load(shards)
    assert report.shards == len(manifest.entries("train")) + len(manifest.entries("heldout"))
    assert report.sidecars == 5


def test_the_first_broken_shard_and_key_are_named(folder):
    path = folder / "train-000003.tar"
    content = bytearray(path.read_bytes())
    content[-1024 - 512 + 130] ^= 4  # behind the 128 bytes of the last array's header
    path.write_bytes(content)
    with pytest.raises(DataError, match=r"train-000003\.tar, key 000003-0000\d: expected the tokens that were written"):
        verify(folder)


def test_a_stray_shard_is_found(folder):
    shutil.copy(folder / "train-000000.tar", folder / "train-000999.tar")
    with pytest.raises(DataError, match=r"train-000999\.tar: expected only the manifest's \d+ shards, got one more; remove it"):
        verify(folder)


def test_altered_sidecars_are_found_by_everyone_who_reads_them(folder):
    for name, read in (
        ("vocabulary.npz", lambda: Stream(folder, "train", StreamSettings(window_tokens=16), 4)),
        ("lengths-train.npy", lambda: BucketedDocuments(folder, "train", 16)),
        ("tokenizer/tokenizer.json", lambda: info(folder)),
    ):
        path = folder / name
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
        for action in (read, lambda: verify(folder)):
            with pytest.raises(DataError, match=rf"{name}: expected sha256 .*, got other bytes"):
                action()
        content[-3] ^= 1
        path.write_bytes(content)


def test_counts_that_are_not_the_shards_are_found(folder):
    manifest = Manifest.load(folder)
    with np.load(folder / "vocabulary.npz") as file:
        arrays = dict(file)
    arrays["counts"][10] += 1
    (folder / "vocabulary.npz").write_bytes(TokenStatistics(**arrays, mask_id=manifest.mask_id).content())
    lie(folder, lambda manifest: None)
    with pytest.raises(DataError, match=r"vocabulary\.npz: expected \d+ times id 10 as in the train split"):
        verify(folder)


def test_lengths_that_are_not_the_shards_are_found(folder):
    lengths = np.load(folder / "lengths-train.npy")
    np.save(folder / "lengths-train.npy", lengths[::-1].copy())
    lie(folder, lambda manifest: None)
    with pytest.raises(DataError, match=r"lengths-train\.npy: expected the lengths in train-000000\.tar, got others"):
        verify(folder)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda m: m["splits"]["train"].reverse(), r"expected train-000000\.tar, got train-"),
        (lambda m: m.update(tokenizer_fingerprint="0" * 64), "expected the tokenizer 000000000000"),
        (lambda m: m.update(sep_id=9), "expected {'cls_id': 2, 'sep_id': 9"),
        (
            lambda m: m["splits"]["train"][0].update(documents=1),
            r"lengths-train\.npy: expected the lengths of train, got a file that does not hold \d+ numbers of uint32",
        ),
        (lambda m: m["sidecars"].pop("vocabulary.npz"), r"vocabulary\.npz: expected an entry in the manifest, got none"),
    ],
)
def test_a_lying_manifest_is_found(folder, change, line):
    lie(folder, change)
    with pytest.raises(DataError, match=line) as error:
        verify(folder)
    assert "\n" not in str(error.value)
