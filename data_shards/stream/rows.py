"""Rows: token ids as a model reads them, before masking."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Rows:
    """B rows of S positions, all int32 [B, S].

    segments: 0 is padding, 1.. numbers the documents of a row.
    positions: they restart with each segment and are 0 in padding.
    missing: skipped shards -> the reason; their rows are padding only.
    """

    input_ids: NDArray[np.int32]
    segments: NDArray[np.int32]
    positions: NDArray[np.int32]
    missing: Mapping[str, str] = field(default_factory=dict)


def framed(
    content: NDArray[np.int32], sizes: NDArray[np.int64], opens: NDArray[np.bool_] | None, cls_id: int, sep_id: int, pad_id: int
) -> Rows:
    """Rows that read [CLS] content [SEP] and then padding.

    content [B, C] ids, of which the first sizes [B] of a row are real -> S = C + 2. `opens` [B, C] marks content that starts a segment.
    The first column never does, because the row's [CLS] has just started one.
    """
    count, width = content.shape[0], content.shape[1] + 2
    columns = np.arange(width)
    ids = np.full((count, width), pad_id, np.int32)
    ids[:, 0] = cls_id
    ids[:, 1:-1] = np.where(columns[:-2] < sizes[:, None], content, pad_id)
    ids[np.arange(count), sizes + 1] = sep_id
    real = columns < sizes[:, None] + 2
    starts = np.zeros((count, width), np.bool_)
    if opens is not None:
        starts[:, 2:-1] = opens[:, 1:]
    starts[:, 0] = True
    segments = np.where(real, np.cumsum(starts, axis=1), 0).astype(np.int32)
    segment_start = np.maximum.accumulate(np.where(starts, columns, 0), axis=1)
    return Rows(ids, segments, np.where(real, columns - segment_start, 0).astype(np.int32))


def emptied(rows: Rows, skipped: NDArray[np.bool_], missing: Mapping[str, str], pad_id: int) -> Rows:
    """The same rows; those that are `skipped` [B] become padding."""
    if not skipped.any():
        return rows
    empty = skipped[:, None]
    return Rows(
        np.where(empty, np.int32(pad_id), rows.input_ids), np.where(empty, 0, rows.segments), np.where(empty, 0, rows.positions), missing
    )
