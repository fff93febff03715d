"""Matrices as 8-bit rows with a scale each, and as 4-bit blocks with a scale each."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
DIVISORS = (5.5, 6.5, 7.5, 8.0, 8.5)
"""Trial scales of a 4-bit block: its largest value divided by each. The one with the smallest squared error is kept."""
CHUNK = 1 << 20
"""Numbers that are rounded at a time, which bounds the memory."""


def rows_to_int8(weight: Floats) -> tuple[NDArray[np.int8], Floats]:
    """[R, D] -> int8 [R, D] and scales [R] fp32: row = int8 row x scale. A row of zeros has scale 1."""
    rows, width = weight.shape
    values, scales = np.empty((rows, width), np.int8), np.empty(rows, np.float32)
    step = max(1, CHUNK // max(1, width))
    for begin in range(0, rows, step):
        part = weight[begin : begin + step]
        largest = np.abs(part).max(axis=1)
        scales[begin : begin + step] = np.where(largest > 0, largest / 127, 1)
        values[begin : begin + step] = np.clip(np.rint(part / scales[begin : begin + step, None]), -127, 127)
    return values, scales


def blocks_to_int4(weight: Floats, block: int) -> tuple[NDArray[np.uint8], Floats]:
    """[R, D] -> two numbers a byte, uint8 [R, ceil(D / block), block / 2], and scales [R, ceil(D / block)] fp32.

    weight = (number - 8) x scale. The first number of a pair has the low bits. The last block of a row is padded with zeros.
    """
    rows, width = weight.shape
    blocks = -(-width // block)
    packed = np.empty((rows, blocks, block // 2), np.uint8)
    scales = np.empty((rows, blocks), np.float32)
    step = max(1, CHUNK // max(1, blocks * block))
    for begin in range(0, rows, step):
        part = np.zeros((min(step, rows - begin), blocks * block), np.float32)
        part[:, :width] = weight[begin : begin + step]
        numbers, found = _best(part.reshape(-1, block))
        packed[begin : begin + step] = (numbers[:, 0::2] | (numbers[:, 1::2] << 4)).reshape(-1, blocks, block // 2)
        scales[begin : begin + step] = found.reshape(-1, blocks)
    return packed, scales


def _best(values: Floats) -> tuple[NDArray[np.uint8], Floats]:
    """[N, block] -> numbers 0 to 15 [N, block], scales [N]: the trial with the smallest squared error, its scale fitted."""
    extreme = np.take_along_axis(values, np.abs(values).argmax(-1)[:, None], -1)
    best = np.full(len(values), np.inf, np.float32)
    numbers, scales = np.full(values.shape, 8, np.uint8), np.ones(len(values), np.float32)
    for divisor in DIVISORS:
        scale = np.where(extreme == 0, 1, -extreme / divisor)
        rounded = np.clip(np.rint(values / scale), -8, 7)
        power = (rounded * rounded).sum(-1)
        fitted = np.where(power > 0, (values * rounded).sum(-1) / np.maximum(power, 1e-30), 1).astype(np.float32)
        error = np.square(rounded * fitted[:, None] - values).sum(-1)
        better = error < best
        best[better], scales[better] = error[better], fitted[better]
        numbers[better] = (rounded[better] + 8).astype(np.uint8)
    return numbers, scales
