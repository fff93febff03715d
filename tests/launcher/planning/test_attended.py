"""The mean length of a position's document in its window, against windows that are cut from documents."""

import numpy as np
import pytest

from data_shards.corpus import Corpus as Shards
from data_shards.stream.settings import StreamSettings
from launcher.planning import attended
from launcher.planning.attended import attended_tokens, mean_of_positions


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


def test_a_long_list_of_lengths_is_not_read_for_the_plan_of_packed_windows(corpus, monkeypatch):
    shards = Shards.open(str(corpus.shards), None)
    windows, rows = StreamSettings(window_tokens=32), StreamSettings(window_tokens=32, packing="documents")
    assert 0 < attended_tokens(shards, windows) <= 32
    whole = attended_tokens(shards, rows)
    monkeypatch.setattr(attended, "MOST_DOCUMENTS", shards.manifest.documents("train") - 1)
    assert attended_tokens(Shards.open(str(corpus.shards), None), windows) == 0
    assert attended_tokens(shards, rows) == pytest.approx(whole, rel=0.5)  # of every second document
