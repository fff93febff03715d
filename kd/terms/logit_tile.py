"""A tile: some rows of logits, and what the closed forms of several terms share of them.

A term asks the tile for distributions and adds its gradient to it. Each distribution of a model at a temperature is computed once, and the
gradient is written once. Tensors [rows, V] come from `Scratch`, so that they stay in the caches.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from kd.copies import moved


@dataclass(frozen=True)
class Rows:
    """Some rows of a tile, ascending. numbers [m] int64: on the host. index [m] int64: the same on the logits' device."""

    numbers: NDArray[np.int64]
    index: Tensor

    @classmethod
    def of(cls, numbers: NDArray[np.int64], device: torch.device) -> Rows:
        """Rows of these numbers."""
        return cls(numbers, moved(torch.from_numpy(numbers), device))


class Scratch:
    """Tensors [rows, V] in fp32 that are used again and again. One that was taken is taken until `release`."""

    def __init__(self, rows: int, vocabulary: int, device: torch.device | str = "cpu", make: Callable[[int], Tensor] | None = None) -> None:
        """make: gives tensor 0, 1, 2, … None: new ones."""
        self.rows = rows
        self._make = make or (lambda _: torch.empty(rows, vocabulary, device=device))
        self._tensors: list[Tensor] = []
        self._used = 0

    def take(self, rows: int) -> Tensor:
        """[rows, V] with any values."""
        if self._used == len(self._tensors):
            self._tensors.append(self._make(self._used))
        self._used += 1
        return self._tensors[self._used - 1][:rows]

    def release(self) -> None:
        """All tensors are free again."""
        self._used = 0


class Distribution:
    """softmax(logits / T) of some rows. logits: (z - max z) / T [n, V], so the largest is 0."""

    def __init__(self, source: Tensor, logits: Tensor, scratch: Scratch) -> None:
        """source: kept, because the tile finds a distribution by the identity of its logits."""
        self.source, self.logits = source, logits
        self._scratch = scratch
        self._probabilities: Tensor | None = None
        self._log_mass: Tensor | None = None
        self.factor: Tensor | None = None
        """[n]: the factor of the probabilities in the gradient."""

    @property
    def probabilities(self) -> Tensor:
        """[n, V]."""
        if self._probabilities is None:
            self._probabilities = torch.softmax(self.logits, -1, out=self._scratch.take(len(self.logits)))
        return self._probabilities

    @property
    def log_mass(self) -> Tensor:
        """[n]: log sum exp(logits). The largest probability is exp(0) over that sum."""
        if self._log_mass is None:
            self._log_mass = self.probabilities.amax(-1).log_().neg_()
        return self._log_mass

    def add(self, factor: Tensor) -> None:
        """Adds factor [n] x the probabilities to the gradient."""
        self.factor = factor if self.factor is None else self.factor + factor


class LogitTile:
    """Rows of the student's logits [n, V] fp32, which nothing here changes, and labels [n]; -100: no label."""

    def __init__(self, student: Tensor, labels: Tensor, scratch: Scratch, labelled: Callable[[], Rows] | None = None) -> None:
        """labelled: gives the rows with a label, from what the host knows. None: they are read from the labels."""
        self.student, self.labels, self.scratch = student, labels, scratch
        self._labelled = labelled
        self._distributions: dict[tuple[int, float], Distribution] = {}
        self._largest: dict[int, Tensor] = {}
        self._matrices: list[tuple[Tensor, Tensor | None]] = []
        self._columns: list[tuple[Tensor, Tensor]] = []
        self._parts: dict[bytes, tuple[Tensor, LogitTile]] = {}
        self._teachers: dict[int, Tensor] = {}

    def take(self) -> Tensor:
        """[n, V] fp32 with any values, for the term that asks."""
        return self.scratch.take(len(self.student))

    def distribution(self, logits: Tensor, temperature: float) -> Distribution:
        """softmax(logits / T), where logits are the student's or a teacher's."""
        key = (id(logits), temperature)
        if key not in self._distributions:
            if id(logits) not in self._largest:
                self._largest[id(logits)] = logits.amax(-1, keepdim=True)
            shifted = torch.sub(logits, self._largest[id(logits)], out=self.take())
            if temperature != 1:
                shifted.mul_(1 / temperature)
            self._distributions[key] = Distribution(logits, shifted, self.scratch)
        return self._distributions[key]

    def add(self, matrix: Tensor, factor: Tensor | None) -> None:
        """Adds factor [n] x matrix [n, V] to the gradient. None: 1. The tile may overwrite the matrix."""
        self._matrices.append((matrix, factor))

    def add_at(self, columns: Tensor, values: Tensor) -> None:
        """Adds values [n, k] to the gradient at columns [n, k]."""
        self._columns.append((columns, values))

    @cached_property
    def labelled(self) -> Rows:
        """The rows with a label."""
        if self._labelled is not None:
            return self._labelled()
        return Rows.of((self.labels >= 0).cpu().numpy().nonzero()[0], self.labels.device)

    def part(self, rows: Rows) -> LogitTile:
        """A tile of some rows, whose gradient is added to this one's."""
        key = rows.numbers.tobytes()
        if key not in self._parts:

            def labelled() -> Rows:
                count, device = len(rows.numbers), self.student.device
                if key == self.labelled.numbers.tobytes():
                    return Rows(np.arange(count), torch.arange(count, device=device))
                return Rows.of(np.flatnonzero(np.isin(rows.numbers, self.labelled.numbers)), device)

            self._parts[key] = rows.index, LogitTile(self.student[rows.index], self.labels[rows.index], self.scratch, labelled)
        return self._parts[key][1]

    def rows_of(self, logits: Tensor, rows: Rows) -> Tensor:
        """Rows of a teacher's logits, for the part of these rows: the same tensor each time."""
        part = self.part(rows)
        if id(logits) not in part._teachers:
            part._teachers[id(logits)] = logits[rows.index]
        return part._teachers[id(logits)]

    def cross_entropy(self, scale: Tensor) -> Tensor:
        """-log softmax(student)[label] [n], 0 where there is no label. Adds scale [n] x its gradient, softmax - one-hot.

        It reads the rows with a label only, unless the whole distribution is there.
        """
        if (id(self.student), 1.0) not in self._distributions and len(self.labelled.numbers) < len(self.labels):
            rows = self.labelled
            values = torch.zeros_like(scale)
            if len(rows.numbers) > 0:
                values[rows.index] = self.part(rows).cross_entropy(scale[rows.index])
            return values
        known = self.labels >= 0
        own = self.distribution(self.student, 1.0)
        index = self.labels.clamp(min=0)[:, None]
        factor = torch.where(known, scale, 0.0)
        own.add(factor)
        self.add_at(index, -factor[:, None])
        return torch.where(known, own.log_mass - own.logits.gather(-1, index)[:, 0], 0.0)

    def gradient(self) -> Tensor | None:
        """The sum of all that was added, [n, V] fp32; None: nothing was. Called once: it overwrites what was added."""
        total: Tensor | None = None
        weighted = [(one.probabilities, one.factor) for one in self._distributions.values() if one.factor is not None]
        for matrix, factor in [*weighted, *self._matrices]:
            if total is None:
                total = matrix if factor is None else matrix.mul_(factor[:, None])
            else:
                total = total.add_(matrix) if factor is None else total.addcmul_(matrix, factor[:, None])
        parts = [(rows, part.gradient()) for rows, part in self._parts.values()]
        if total is None and (self._columns or any(gradient is not None for _, gradient in parts)):
            total = self.take().zero_()
        for columns, values in self._columns:
            assert total is not None
            total.scatter_add_(-1, columns, values)
        for rows, gradient in parts:
            if gradient is not None:
                assert total is not None
                total.index_add_(0, rows, gradient)
        return total
