"""Packed windows: by hand on a few ids, and back to the documents on many."""

import numpy as np
import pytest

from data_shards.errors import DataError
from data_shards.stream.packed import PackedWindows

PAD, CLS, SEP = 0, 2, 3


def test_windows_by_hand(tmp_path, make_shards):
    make_shards(tmp_path, [[10, 11, 12, 13, 14], [20, 21, 22]])
    windows = PackedWindows(tmp_path, "train", 6)
    rows = windows.read(np.arange(3))
    assert rows.input_ids.tolist() == [
        [CLS, 10, 11, 12, 13, SEP],
        [CLS, 14, SEP, CLS, 20, SEP],
        [CLS, 21, 22, SEP, PAD, PAD],
    ]
    assert rows.segments.tolist() == [[1, 1, 1, 1, 1, 1], [1, 1, 1, 2, 2, 2], [1, 1, 1, 1, 0, 0]]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 1, 2], [0, 1, 2, 3, 0, 0]]
    assert (windows.count, windows.tokens) == (3, 16)


def test_a_cut_between_two_documents_still_gives_segments_from_cls_to_sep(tmp_path, make_shards):
    make_shards(tmp_path, [[10, 11, 12], [20, 21, 22, 23]])
    rows = PackedWindows(tmp_path, "train", 6).read(np.arange(3))
    assert rows.input_ids.tolist() == [[CLS, 10, 11, 12, SEP, SEP], [CLS, CLS, 20, 21, 22, SEP], [CLS, 23, SEP, PAD, PAD, PAD]]
    assert rows.segments.tolist() == [[1] * 6, [1] * 6, [1, 1, 1, 0, 0, 0]]


def test_across_documents_a_window_is_one_segment(tmp_path, make_shards):
    make_shards(tmp_path, [[10, 11, 12, 13, 14], [20, 21, 22]])
    rows = PackedWindows(tmp_path, "train", 6, across_documents=True).read(np.array([1, 2]))
    assert rows.input_ids.tolist() == [[CLS, 14, SEP, CLS, 20, SEP], [CLS, 21, 22, SEP, PAD, PAD]]
    assert rows.segments.tolist() == [[1] * 6, [1, 1, 1, 1, 0, 0]]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 0, 0]]


@pytest.mark.parametrize("window_tokens", [4, 7, 16, 128])
def test_the_windows_of_a_split_hold_every_token_of_every_document_once(shards, random_documents, window_tokens):
    windows = PackedWindows(shards, "train", window_tokens)
    documents = iter(random_documents(120, seed=1))
    for first, count, entry in zip(
        np.cumsum([0, *windows.shard_windows]), windows.shard_windows, windows.manifest.entries("train"), strict=False
    ):
        rows = windows.read(first + np.arange(count))
        real = (rows.segments > 0).sum(axis=1)
        assert (real[:-1] == window_tokens).all(), "only a shard's last window may hold padding"
        content = np.concatenate([row[1 : size - 1] for row, size in zip(rows.input_ids, real, strict=True)])
        expected = [next(documents) for _ in range(entry.documents)]
        joined = expected[0] + [token for document in expected[1:] for token in (SEP, CLS, *document)]
        assert content.tolist() == joined
    assert next(documents, None) is None


def test_every_segment_reads_from_cls_to_sep_with_positions_from_zero(shards):
    windows = PackedWindows(shards, "train", 16)
    rows = windows.read(np.arange(windows.count))
    for ids, segments, positions in zip(rows.input_ids, rows.segments, rows.positions, strict=True):
        for segment in range(1, segments.max() + 1):
            inside = np.flatnonzero(segments == segment)
            assert (ids[inside[0]], ids[inside[-1]]) == (CLS, SEP)
            assert positions[inside].tolist() == list(range(len(inside)))


def test_rows_do_not_depend_on_what_is_read_with_them(shards):
    windows = PackedWindows(shards, "train", 16, open_shards=1)
    together = windows.read(np.array([40, 3, 99, 3]))
    for index, window in enumerate([40, 3, 99, 3]):
        assert windows.read(np.array([window])).input_ids[0].tolist() == together.input_ids[index].tolist()


def test_a_window_too_short_for_a_token_is_refused(shards):
    with pytest.raises(DataError, match="expected at least 4, got 3"):
        PackedWindows(shards, "train", 3)


def test_a_split_without_documents_is_refused(tmp_path, make_shards):
    make_shards(tmp_path, [[10]])
    with pytest.raises(DataError, match="expected a heldout split with documents, got none"):
        PackedWindows(tmp_path, "heldout", 8)
