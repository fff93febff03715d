"""Framing: [CLS] content [SEP] padding, segments and positions."""

import numpy as np

from data_shards.stream.rows import framed


def test_a_row_is_framed_and_padded():
    rows = framed(np.array([[7, 8, 9], [5, 0, 0]], np.int32), np.array([3, 1]), None, cls_id=2, sep_id=3, pad_id=0)
    assert rows.input_ids.tolist() == [[2, 7, 8, 9, 3], [2, 5, 3, 0, 0]]
    assert rows.segments.tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 4], [0, 1, 2, 0, 0]]
    assert {array.dtype for array in (rows.input_ids, rows.segments, rows.positions)} == {np.dtype(np.int32)}


def test_an_opening_inside_starts_a_segment_but_one_in_the_first_column_does_not():
    opens = np.array([[True, False, True, False]])
    rows = framed(np.array([[2, 6, 2, 7]], np.int32), np.array([4]), opens, cls_id=2, sep_id=3, pad_id=0)
    assert rows.segments.tolist() == [[1, 1, 1, 2, 2, 2]]
    assert rows.positions.tolist() == [[0, 1, 2, 0, 1, 2]]
