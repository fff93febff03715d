"""Rows of the vocabulary head that the terms read, known on the host. So no chunk asks the device for a number of rows."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from kd.copies import moved
from kd.terms.logit_tile import Rows


class RowList:
    """Rows of the head, ascending. They are moved to the device once, and a tile's rows are cut from them there."""

    def __init__(self, mask: Tensor, device: torch.device) -> None:
        """mask: [N] bool, on the host."""
        self._numbers = np.flatnonzero(mask.numpy())
        self._list = self._numbers.tolist()
        self._index = moved(torch.from_numpy(self._numbers), device)

    def count(self, part: slice) -> int:
        """The number of rows within a part of the head."""
        first, last = self._range(part)
        return last - first

    def within(self, part: slice) -> Rows:
        """The rows within a part, counted from its begin."""
        first, last = self._range(part)
        return Rows(self._numbers[first:last] - part.start, self._index[first:last] - part.start)

    def _range(self, part: slice) -> tuple[int, int]:
        first = bisect_left(self._list, part.start)  # ten times as fast as numpy's, which is for many numbers at once
        return first, bisect_left(self._list, part.stop, first)


@dataclass(frozen=True)
class HeadRows:
    """looked: the rows that each term reads. labelled: the rows with a label."""

    looked: Sequence[RowList]
    labelled: RowList


def read(scales: Tensor, labels: Tensor) -> HeadRows:
    """The rows with scales [K, N] above 0, and those with labels [N]. A GPU makes the host wait for them."""
    device = labels.device
    return HeadRows([RowList(one, device) for one in (scales > 0).cpu()], RowList((labels >= 0).cpu(), device))
