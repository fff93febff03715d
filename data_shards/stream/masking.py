"""Masks: the positions that a model predicts, and the ids that it reads there. A pure function of (seed, window, visit, position)."""

import numpy as np
from numpy.typing import NDArray

from data_shards.storage.token_statistics import TokenStatistics
from data_shards.stream.counter_hash import Words, counter_hash, unit_interval
from data_shards.stream.rows import Rows
from data_shards.stream.settings import MaskingSettings

IGNORED = -100  # the label of a position that is not predicted
CHOICE, FATE, REPLACEMENT = 0, 1, 2  # the independent draws at one position


class Masker:
    """Masks rows of one vocabulary. Of n tokens in a window, ceil(rate * n) are predicted; special tokens and padding never are.

    whole_word takes whole words until that many tokens are reached. The excess is less than one word.
    """

    def __init__(self, settings: MaskingSettings, statistics: TokenStatistics, seed: int) -> None:
        self._settings = settings
        self._statistics = statistics
        self._seed = seed
        self._ordinary = np.flatnonzero(~statistics.is_special).astype(np.int32)
        self._rarity = np.maximum(statistics.counts, 1).astype(np.float64) ** settings.smoothing

    def apply(self, rows: Rows, window_ids: NDArray[np.int64], visits: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
        """Rows [B, S], window ids [B], visits [B] -> (input_ids, labels), int32 [B, S]; labels are IGNORED where nothing is predicted."""
        ids = rows.input_ids
        eligible = (rows.segments > 0) & ~self._statistics.is_special[ids]
        budget = np.ceil(self._settings.rate * eligible.sum(axis=1) - 1e-9).astype(np.int64)
        predicted = self._chosen(rows, eligible, budget, self._draw(window_ids, visits, ids.shape[1], CHOICE))
        fate = unit_interval(self._draw(window_ids, visits, ids.shape[1], FATE))
        spare = self._ordinary[self._draw(window_ids, visits, ids.shape[1], REPLACEMENT) % np.uint64(len(self._ordinary))]
        hidden = predicted & (fate < self._settings.mask_share)
        replaced = predicted & ~hidden & (fate < self._settings.mask_share + self._settings.random_share)
        seen = np.where(hidden, np.int32(self._statistics.mask_id), np.where(replaced, spare, ids))
        return seen, np.where(predicted, ids, np.int32(IGNORED))

    def _draw(self, window_ids: NDArray[np.int64], visits: NDArray[np.int64], width: int, draw: int) -> Words:
        return counter_hash(self._seed, np.asarray(window_ids)[:, None], np.asarray(visits)[:, None], draw, np.arange(width))

    def _chosen(self, rows: Rows, eligible: NDArray[np.bool_], budget: NDArray[np.int64], words: Words) -> NDArray[np.bool_]:
        """The positions with the smallest keys, `budget` [B] of them per row."""
        keys = unit_interval(words)
        if self._settings.policy == "frequency":  # exponential keys: drawing without replacement in proportion to 1 / rarity
            keys = -np.log(keys) * self._rarity[rows.input_ids]
        first = (
            self._first_of_word(rows, eligible)
            if self._settings.policy == "whole_word"
            else np.broadcast_to(np.arange(keys.shape[1]), keys.shape)
        )
        keys = np.where(eligible, np.take_along_axis(keys, first, axis=1), np.inf)
        order = np.argsort(keys, axis=1, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.broadcast_to(np.arange(keys.shape[1]), keys.shape), axis=1)
        return eligible & (np.take_along_axis(rank, first, axis=1) < budget[:, None])

    def _first_of_word(self, rows: Rows, eligible: NDArray[np.bool_]) -> NDArray[np.int64]:
        """The position of the first piece of each position's word. [B, S]; a word never reaches over a special token."""
        joins = eligible & self._statistics.is_continuation[rows.input_ids]
        joins[:, 1:] &= eligible[:, :-1]
        joins[:, 0] = False
        columns = np.broadcast_to(np.arange(joins.shape[1]), joins.shape)
        return np.maximum.accumulate(np.where(joins, 0, columns), axis=1)
