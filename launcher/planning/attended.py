"""Positions that a position attends to, where documents of a packed window are computed apart."""

import numpy as np
from numpy.typing import NDArray

from data_shards.corpus import Corpus
from data_shards.errors import DataError
from data_shards.stream.settings import StreamSettings

MOST_DOCUMENTS = 1 << 20
"""A start reads no larger list of lengths for the plan alone: the list of a billion documents has 4 GB."""


def attended_tokens(corpus: Corpus, stream: StreamSettings) -> int:
    """The mean over positions of the length of their document in their window. 0: not known, or windows are computed whole.

    Not known of packed windows of more than MOST_DOCUMENTS documents. Rows of one document need their lengths anyway.
    """
    documents = corpus.manifest.documents("train")
    if stream.attend_across_documents or (stream.packing == "windows" and documents > MOST_DOCUMENTS):
        return 0
    try:
        lengths = corpus.lengths("train")
    except (DataError, OSError):
        return 0
    return mean_of_positions(lengths[:: -(-documents // MOST_DOCUMENTS) or 1], stream.window_tokens, cut=stream.packing == "windows")


def mean_of_positions(lengths: NDArray[np.uint32], window: int, cut: bool) -> int:
    """See attended_tokens. cut: windows begin anywhere in a document; else a document has a row, whose end is left out.

    A cut at a uniform place leaves n^2 - n^3 / 3 S of the n^2 pairs of a document of n <= S tokens, and n S - S^2 / 3 of a longer one.
    """
    n, most = lengths.astype(np.float64), float(window)
    if not len(n) or not n.sum():
        return 0
    if cut:
        pairs = np.where(n <= most, n**2 * (1 - n / (3 * most)), n * most - most**2 / 3)
    else:
        n = np.minimum(n, most)
        pairs = n**2
    return max(1, round(float(pairs.sum() / n.sum())))
