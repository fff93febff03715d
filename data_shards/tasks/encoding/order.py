"""The order of rows in training: which rows make up update n is a pure function of (lengths, seed, n)."""

import threading

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import DataError
from data_shards.stream.counter_hash import permutation

EPOCH, BATCHES = 101, 102
"""Keys that keep the two permutations of an epoch apart."""
KEPT_EPOCHS = 2


class TaskOrder:
    """Rows of like length in each batch. Neither ranks nor micro-batches nor restarts influence which rows an update has.

    The rows of all epochs form an endless sequence in which each epoch has every row once. Update n takes the entries n G .. n G + G - 1.
    So a batch is always full: the last one of an epoch is filled with the first rows of the next epoch. Within an epoch the rows are
    shuffled, cut into buckets of `bucket` batches, and sorted by length in each bucket. Then the batches are shuffled. Rows of the batches
    that two epochs share are of any length. Rows of a batch are sorted by length, so that micro-batches have like lengths too.
    """

    def __init__(self, lengths: NDArray[np.int64], seed: int, global_batch: int, bucket: int = 50) -> None:
        """lengths: tokens of each row, int64 [R]. bucket: batches in a bucket; 1 is a plain shuffle. Raises DataError without rows."""
        if not len(lengths):
            raise DataError("train: expected rows, got none; check the files")
        if global_batch < 1 or bucket < 1:
            raise DataError(f"global_batch and bucket: expected at least 1, got {global_batch} and {bucket}; raise them")
        self.rows = len(lengths)
        self.global_batch = global_batch
        self._lengths = np.asarray(lengths, np.int64)
        self._seed, self._bucket = seed, bucket
        self._epochs: dict[int, NDArray[np.int64]] = {}
        self._lock = threading.Lock()

    def updates(self, epochs: float) -> int:
        """The number of updates in which every row is seen at least this many times, rounded up to a whole batch."""
        return int(-(-self.rows * epochs // self.global_batch))

    def epoch_of(self, update: int) -> int:
        """The epoch of an update's first row."""
        return update * self.global_batch // self.rows

    def batch(self, update: int) -> NDArray[np.int64]:
        """The rows of an update, the shortest first. int64 [G]."""
        positions = update * self.global_batch + np.arange(self.global_batch)
        epochs, at = np.divmod(positions, self.rows)
        rows = np.empty(self.global_batch, np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            rows[chosen] = self._epoch(int(epoch))[at[chosen]]
        return rows[np.argsort(self._lengths[rows], kind="stable")]

    def micro_batch(self, update: int, rank: int, world: int, size: int, index: int) -> NDArray[np.int64]:
        """The rows of one micro-batch of one rank, int64 [size].

        A rank has the batch's slots i with i % world == rank. The micro-batch starts at slot index * size of these.
        Raises DataError where ranks times `size` do not divide the global batch.
        """
        if self.global_batch % (world * size):
            raise DataError(
                f"global_batch: expected a multiple of ranks x micro_batch = {world} x {size}, got {self.global_batch}; change one of them"
            )
        return self.batch(update)[rank::world][index * size : (index + 1) * size]

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """All rows in the order of an epoch. int64 [R]."""
        with self._lock:
            order = self._epochs.get(epoch)
            if order is None:
                order = self._epochs[epoch] = self._ordered(epoch)
                while len(self._epochs) > KEPT_EPOCHS:
                    del self._epochs[next(iter(self._epochs))]
            return order

    def _ordered(self, epoch: int) -> NDArray[np.int64]:
        size = self.global_batch
        shuffled = permutation(self.rows, self._seed, EPOCH, epoch)
        head = min(-self.rows * epoch % size, self.rows)  # these fill the last batch of the epoch before
        batches = (self.rows - head) // size
        body = shuffled[head : head + batches * size]
        for start in range(0, len(body), self._bucket * size):
            bucket = body[start : start + self._bucket * size]
            body[start : start + len(bucket)] = bucket[np.argsort(self._lengths[bucket], kind="stable")]
        mixed = body.reshape(-1, size)[permutation(batches, self._seed, BATCHES, epoch)] if batches else body
        return np.concatenate([shuffled[:head], mixed.ravel(), shuffled[head + batches * size :]])
