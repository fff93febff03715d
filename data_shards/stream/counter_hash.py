"""Random numbers without a state: splitmix64 over a tuple of counters, the same on every machine and numpy version."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Words = NDArray[np.uint64]


def counter_hash(*counters: ArrayLike) -> Words:
    """64 random bits for each tuple of integers; the counters broadcast against each other. uint64, of the broadcast shape."""
    state: Words = np.zeros((), np.uint64)
    with np.errstate(over="ignore"):
        for counter in counters:
            state = _splitmix64(state ^ np.asarray(counter).astype(np.uint64))
    return state


def unit_interval(words: Words) -> NDArray[np.float64]:
    """Random bits as float64 in (0, 1): never 0, so that a logarithm is finite."""
    return ((words >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53


def permutation(length: int, *key: int) -> NDArray[np.int64]:
    """The numbers 0..length-1 in the order that `key` decides. int64 [length]."""
    return np.argsort(counter_hash(*key, np.arange(length)), kind="stable")


def _splitmix64(word: Words) -> Words:
    word = word + np.uint64(0x9E3779B97F4A7C15)
    word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return word ^ (word >> np.uint64(31))
