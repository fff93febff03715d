"""Chunks of documents: one per row, in batches of one bin each, none lost and none twice."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_shards.stream.bucket_order import BucketOrder
from data_shards.stream.bucketed import BucketedDocuments

PAD, CLS, SEP = 0, 2, 3


def test_pieces_by_hand(tmp_path, make_shards):
    make_shards(tmp_path, [[10, 11, 12, 13, 14], [20]], block_tokens=5, shard_tokens=5)
    pieces = BucketedDocuments(tmp_path, "train", 6, bin_width=2)
    assert pieces.shard_windows == [2, 1]
    assert pieces.widths.tolist() == [6, 4, 4]
    assert pieces.read(np.array([0, 1])).input_ids.tolist() == [[CLS, 10, 11, 12, 13, SEP], [CLS, 14, SEP, PAD, PAD, PAD]]
    assert pieces.read(np.array([2, 1])).input_ids.tolist() == [[CLS, 20, SEP, PAD], [CLS, 14, SEP, PAD]]
    assert pieces.read(np.array([2])).segments.tolist() == [[1, 1, 1, 0]]
    assert pieces.tokens == 6 + 3 + 3


@pytest.mark.parametrize("window_tokens", [5, 16, 100])
def test_the_pieces_of_a_split_hold_every_token_once(shards, random_documents, window_tokens):
    pieces = BucketedDocuments(shards, "train", window_tokens, bin_width=8)
    rows = pieces.read(np.arange(pieces.count))
    content = [row[1 : size - 1] for row, size in zip(rows.input_ids, (rows.segments > 0).sum(axis=1), strict=True)]
    assert np.concatenate(content).tolist() == [token for document in random_documents(120, seed=1) for token in document]


@settings(max_examples=60, deadline=None)
@given(
    shard_widths=st.lists(st.lists(st.sampled_from([8, 16, 24]), max_size=30), min_size=1, max_size=5),
    global_batch=st.integers(1, 9),
)
def test_an_epoch_serves_every_piece_once_and_whole_batches_are_of_one_bin(shard_widths, global_batch):
    widths = np.array([width for shard in shard_widths for width in shard], np.uint16)
    if len(widths) < global_batch:
        return
    order = BucketOrder(widths, [len(shard) for shard in shard_widths], global_batch, seed=3)
    epochs = 3
    pieces, visits = order.locate(np.arange(epochs * len(widths)))
    mixed = 0
    for epoch in range(epochs):
        assert sorted(pieces[visits == epoch].tolist()) == list(range(len(widths)))
    for first in range(0, len(pieces) - global_batch + 1, global_batch):
        mixed += len(np.unique(widths[pieces[first : first + global_batch]])) > 1
    # Per epoch, the leftovers are at most (bins x (G - 1)) pieces, and one more batch may be broken up to complete the one before.
    assert mixed <= epochs * (3 * (global_batch - 1) // global_batch + 2)


def test_a_batch_is_served_when_its_bin_fills():
    widths = np.array([8, 16] * 8, np.uint16)
    order = BucketOrder(widths, [16], global_batch=4, seed=1)
    pieces, _ = order.locate(np.arange(16))
    assert [len(np.unique(widths[pieces[at : at + 4]])) for at in (0, 4, 8, 12)] == [1, 1, 1, 1]


def test_epochs_differ():
    order = BucketOrder(np.full(40, 8, np.uint16), [20, 20], global_batch=8, seed=1)
    first, second = order.locate(np.arange(40))[0], order.locate(40 + np.arange(40))[0]
    assert first.tolist() != second.tolist()


def test_an_epoch_that_is_asked_for_after_later_ones_is_still_served():
    def order() -> BucketOrder:
        return BucketOrder(np.array([8, 8, 16, 16], np.uint16), [4], 2, seed=1)

    apart = [order().locate(np.arange(4) + 4 * epoch)[0].tolist() for epoch in range(4)]
    together = order()
    assert [together.locate(np.arange(4) + 4 * epoch)[0].tolist() for epoch in (2, 3, 0, 1)] == [apart[epoch] for epoch in (2, 3, 0, 1)]
