"""The mean length of a position's document in its window, against windows that are cut from documents."""

import numpy as np
import pytest

from launcher.planning.attended import mean_of_positions


@pytest.mark.parametrize("longest", [20, 100, 1000])
def test_a_cut_stream_has_the_mean_length_of_the_formula(longest: int):
    lengths = np.random.default_rng(7).integers(2, longest, 20_000)
    ends = np.cumsum(lengths)
    cuts = np.union1d(ends, np.arange(128, ends[-1], 128))
    pieces = np.diff(cuts, prepend=0).astype(float)
    assert mean_of_positions(lengths, 128, cut=True) == pytest.approx((pieces**2).sum() / pieces.sum(), rel=0.02, abs=1)


def test_a_row_of_one_document_is_as_long_as_the_document():
    assert mean_of_positions(np.array([10, 30, 500], np.uint32), 128, cut=False) == round((100 + 900 + 128**2) / 168)
    assert mean_of_positions(np.array([], np.uint32), 128, cut=True) == 0
