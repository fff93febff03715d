"""Cutting documents into blocks and shards: by hand, whatever the portions they come in."""

import hashlib
import json
import tarfile

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.storage.shard import Shard
from data_shards.storage.shard_writer import SplitWriter


def write(folder, lengths: list[int], portions: list[int], block_tokens: int = 10, shard_tokens: int = 25) -> SplitWriter:
    """Documents of these lengths, ids counting up from 0, added in portions of so many documents."""
    written = []
    writer = SplitWriter(folder, "train", block_tokens, shard_tokens, 1000, written.append)
    ids, sizes = np.arange(sum(lengths), dtype=np.uint16), np.array(lengths, np.uint32)
    ends = [0, *np.cumsum(lengths).tolist()]
    first = 0
    for portion in portions:
        if first == len(lengths):
            break
        last = min(first + portion, len(lengths))
        writer.add(ids[ends[first] : ends[last]], sizes[first:last], [bytes([n % 256]) for n in range(first, last)])
        first = last
    assert first == len(lengths)
    writer.finish()
    assert written == writer.entries
    return writer


def test_blocks_and_shards_end_with_the_document_that_fills_them(tmp_path):
    writer = write(tmp_path, [4, 4, 4, 12, 3, 0, 5, 2, 30, 1], [10])
    # blocks: 4+4+4, 12, 3+0+5+2 | 30, then 1 begins the next: shards after 25 tokens or more
    shards = [Shard.open(tmp_path, entry) for entry in writer.entries]
    assert [[block.tokens for block in shard.blocks] for shard in shards] == [[12, 12, 10], [30], [1]]
    assert [shard.lengths.tolist() for shard in shards] == [[4, 4, 4, 12, 3, 5, 2], [30], [1]]
    assert [block.key for shard in shards for block in shard.blocks] == [
        "000000-00000",
        "000000-00001",
        "000000-00002",
        "000001-00000",
        "000002-00000",
    ]
    assert shards[1].document(0).tolist() == list(range(34, 64))
    assert writer.consumed == 10, "a document without tokens is consumed too"
    assert writer.counts[:65].tolist() == [1] * 65
    assert writer.digest.hexdigest() == hashlib.sha256(bytes(range(10))).hexdigest()


@settings(max_examples=40, deadline=None)
@given(lengths=st.lists(st.integers(0, 15), min_size=1, max_size=40), portion=st.integers(1, 40))
def test_the_files_do_not_depend_on_the_portions(tmp_path_factory, lengths, portion):
    folders = [tmp_path_factory.mktemp("portions") for _ in range(2)]
    writers = [write(folders[0], lengths, [portion] * len(lengths)), write(folders[1], lengths, [len(lengths)])]
    assert writers[0].entries == writers[1].entries
    assert sum(entry.tokens for entry in writers[0].entries) == sum(lengths)
    assert [(folders[0] / entry.name).read_bytes() for entry in writers[0].entries] == [
        (folders[1] / entry.name).read_bytes() for entry in writers[1].entries
    ]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves the file to the collector
def test_a_shard_is_read_by_webdataset_as_it_is(tmp_path):
    write(tmp_path, [5, 6, 7], [3], block_tokens=10)
    samples = list(webdataset.WebDataset(str(tmp_path / "train-000000.tar"), shardshuffle=False).decode())
    assert [sample["__key__"] for sample in samples] == ["000000-00000", "000000-00001"]
    assert samples[0]["tokens.npy"].tolist() == list(range(11))
    assert samples[0]["lengths.npy"].tolist() == [5, 6]
    assert samples[1]["json"]["documents"] == 1


def test_nothing_but_plain_numbers_lies_in_a_shard(tmp_path):
    write(tmp_path, [5], [1])
    with tarfile.open(tmp_path / "train-000000.tar") as tar:
        assert tar.getnames() == ["000000-00000.json", "000000-00000.lengths.npy", "000000-00000.tokens.npy"]
        facts = json.load(tar.extractfile("000000-00000.json"))
        assert facts | {"crc32": 0, "lengths_crc32": 0} == {"crc32": 0, "documents": 1, "lengths_crc32": 0, "tokens": 5}


def test_an_abandoned_shard_leaves_nothing(tmp_path):
    writer = SplitWriter(tmp_path, "train", 10, 100, 1000, lambda entry: None)
    writer.add(np.arange(20, dtype=np.uint16), np.array([20], np.uint32), [b""])
    assert [path.name for path in tmp_path.iterdir()] == [".train-000000.tar.partial"]
    writer.abandon()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("lengths", [[0], [0, 0, 0]])
def test_documents_without_tokens_make_no_shard(tmp_path, lengths):
    assert write(tmp_path, lengths, [len(lengths)]).entries == []
