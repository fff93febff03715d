"""Masks: which positions, how many, what stands there, and that nothing but (seed, window, visit, position) decides."""

import numpy as np
import pytest
from pydantic import ValidationError

from data_shards.storage.token_statistics import TokenStatistics
from data_shards.stream.masking import IGNORED, Masker
from data_shards.stream.rows import Rows, framed
from data_shards.stream.settings import MaskingSettings

SPECIAL, V, MASK = 5, 700, 4
CONTINUES = 600


def vocabulary(counts: np.ndarray | None = None) -> TokenStatistics:
    ids = np.arange(V)
    return TokenStatistics(np.ones(V, np.uint64) if counts is None else counts.astype(np.uint64), ids < SPECIAL, ids >= CONTINUES, MASK)


def rows(count: int, tokens: int, seed: int = 0, low: int = SPECIAL, high: int = V) -> Rows:
    content = np.random.default_rng(seed).integers(low, high, (count, tokens)).astype(np.int32)
    return framed(content, np.full(count, tokens), None, cls_id=2, sep_id=3, pad_id=0)


def apply(settings: MaskingSettings, of: Rows, seed: int = 1, visit: int = 0, vocabulary: TokenStatistics = vocabulary()):  # noqa: B008
    ids = np.arange(len(of.input_ids))
    return Masker(settings, vocabulary, seed).apply(of, ids, np.full_like(ids, visit))


@pytest.mark.parametrize("policy", ["token", "frequency"])
@pytest.mark.parametrize(("tokens", "rate", "predicted"), [(126, 0.15, 19), (20, 0.15, 3), (1, 0.15, 1), (10, 0.4, 4), (7, 0.5, 4)])
def test_the_rate_is_exact_rounded_up(policy, tokens, rate, predicted):
    _, labels = apply(MaskingSettings(policy=policy, rate=rate), rows(50, tokens))
    assert ((labels != IGNORED).sum(axis=1) == predicted).all()


@pytest.mark.parametrize("policy", ["token", "whole_word", "frequency"])
def test_specials_and_padding_are_never_predicted_and_never_changed(policy):
    content = np.array([[10, 3, 2, 11, 1, 4, 12, 0]], np.int32)
    of = framed(content, np.array([7]), None, cls_id=2, sep_id=3, pad_id=0)
    seen, labels = apply(MaskingSettings(policy=policy, rate=0.99), of)
    special = of.input_ids < SPECIAL
    assert (labels[special] == IGNORED).all()
    assert (seen[special] == of.input_ids[special]).all()
    assert labels[~special].tolist() == [10, 11, 12]


@pytest.mark.parametrize("policy", ["token", "whole_word", "frequency"])
def test_a_row_is_masked_alike_in_any_batch_and_beside_any_padding(policy):
    settings = MaskingSettings(policy=policy)
    of = rows(16, 60)
    masker = Masker(settings, vocabulary(), 1)
    ids, visits = np.arange(16) * 7, np.arange(16) % 3
    seen, labels = masker.apply(of, ids, visits)
    for index in (3, 9):
        wider = framed(of.input_ids[[index], 1:-1], np.array([60]), None, 2, 3, 0)
        padded = Rows(*(np.pad(array, ((0, 0), (0, 64))) for array in (wider.input_ids, wider.segments, wider.positions)))
        alone_seen, alone_labels = masker.apply(padded, ids[[index]], visits[[index]])
        assert alone_seen[0, :62].tolist() == seen[index].tolist()
        assert alone_labels[0, :62].tolist() == labels[index].tolist()
        assert (alone_labels[0, 62:] == IGNORED).all()


def test_another_visit_window_or_seed_gives_another_mask():
    of = rows(1, 100)
    masks = [Masker(MaskingSettings(), vocabulary(), seed).apply(of, np.array([window]), np.array([visit]))[1].tobytes()
             for seed in (1, 2) for window in (0, 1) for visit in (0, 1)]  # fmt: skip
    assert len(set(masks)) == 8


def test_of_the_predicted_eight_in_ten_are_hidden_one_is_random_and_one_stays():
    of = rows(2000, 126, low=SPECIAL, high=CONTINUES)
    seen, labels = apply(MaskingSettings(), of)
    predicted = labels != IGNORED
    count = predicted.sum()
    hidden, same = (seen[predicted] == MASK), (seen[predicted] == labels[predicted])
    spread = 5 * (0.25 / count) ** 0.5  # five standard deviations of a share
    assert abs(hidden.mean() - 0.8) < spread
    assert abs(same.mean() - (0.1 + 0.1 / (V - SPECIAL))) < spread
    replaced = seen[predicted][~hidden & ~same]
    assert replaced.min() >= SPECIAL
    # Of 695 ids, some 3,800 draws miss 3 on average.
    assert len(np.unique(replaced)) > 680, "replacements come from the whole vocabulary without its special ids"


def test_every_position_is_as_likely_as_another():
    of = rows(5000, 20)
    _, labels = apply(MaskingSettings(rate=0.15), of)
    shares = (labels != IGNORED).mean(axis=0)[1:-1]
    assert np.abs(shares - 3 / 20).max() < 5 * (0.15 * 0.85 / 5000) ** 0.5


def test_frequency_draws_two_tokens_in_the_ratio_of_their_weights():
    # One of two tokens is predicted; drawn in proportion to count^-0.7, the rarer one is chosen with 1 / (1 + (1 / 1000)^0.7).
    counts = np.ones(V)
    counts[10], counts[11] = 1000, 100
    content = np.tile(np.array([[10, 11]], np.int32), (20_000, 1))
    of = framed(content, np.full(20_000, 2), None, 2, 3, 0)
    _, labels = apply(MaskingSettings(policy="frequency", rate=0.5), of, vocabulary=vocabulary(counts))
    common, rare = 1000**-0.7, 100**-0.7
    expected = rare / (rare + common)
    assert abs((labels[:, 2] != IGNORED).mean() - expected) < 5 * (expected * (1 - expected) / 20_000) ** 0.5


def test_frequency_without_smoothing_is_the_token_policy_at_another_key_but_the_same_rate():
    of = rows(3000, 20)
    _, labels = apply(MaskingSettings(policy="frequency", smoothing=0.0), of)
    shares = (labels != IGNORED).mean(axis=0)[1:-1]
    assert np.abs(shares - 3 / 20).max() < 5 * (0.15 * 0.85 / 3000) ** 0.5


def test_whole_words_are_predicted_in_one_piece():
    of = rows(300, 60, low=500)  # about half of the ids continue a word
    _, labels = apply(MaskingSettings(policy="whole_word"), of)
    predicted = labels != IGNORED
    for ids, chosen in zip(of.input_ids[:, 1:-1], predicted[:, 1:-1], strict=True):
        words = np.cumsum(np.concatenate([[True], ids[1:] < CONTINUES]))
        for word in np.unique(words):
            assert len(set(chosen[words == word].tolist())) == 1
        longest = max(np.bincount(words))
        assert 9 <= chosen.sum() < 9 + longest, "the budget of ceil(0.15 * 60) is reached, and passed by less than one word"


def test_a_word_does_not_reach_over_a_separator():
    content = np.array([[10, 610, 3, 2, 611, 12]], np.int32)
    of = framed(content, np.array([6]), None, 2, 3, 0)
    together = set()
    for visit in range(200):
        _, labels = apply(MaskingSettings(policy="whole_word", rate=0.2), of, visit=visit)
        together.add(tuple(np.flatnonzero(labels[0] != IGNORED).tolist()))
    assert together == {(1, 2), (5,), (6,)}


def test_shares_above_one_and_unknown_keys_are_refused():
    with pytest.raises(ValidationError, match="at most 1"):
        MaskingSettings(mask_share=0.8, random_share=0.3)
    with pytest.raises(ValidationError, match="Extra inputs"):
        MaskingSettings(rates=0.15)
