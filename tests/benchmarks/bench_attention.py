"""Attention by document against masked attention, interleaved, as ratios.

    python tests/benchmarks/bench_attention.py [--rounds 5]

One layer's attention, forward and backward (a student's), or forward alone without dropout (a teacher's): 12 heads x 32, 2,048 positions,
one thread, seconds of the processor. fp32 products are those of a run (kd.kernels.fp32_products), or with --mkl those of MKL. Each round
runs every way once on documents of other lengths. A figure is the median over rounds of eager (or sdpa) over documents: above 1, documents
is faster.
"""

import argparse
import json
import platform
import random
import statistics
import time

import torch
import torch.nn.functional as F

from kd.kernels import fp32_products, host_memory
from kd.models.attention.document_attention import attend

HEADS, SIZE, POSITIONS, WARM = 12, 32, 2048, 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--mkl", action="store_true")
    arguments = parser.parse_args()
    rounds, onednn = arguments.rounds, not arguments.mkl and fp32_products.choose()
    host_memory.keep()
    torch.set_num_threads(1)
    draw = random.Random(7)
    print(
        json.dumps(
            {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "rounds": rounds, "onednn": onednn}
        )
    )
    for dtype in (torch.float32, torch.bfloat16):
        for window, documents in ((128, 1), (128, 2), (128, 6), (512, 1), (512, 4), (512, 16)):
            for dropout in (None, 0.0, 0.1):
                seconds = measured(dtype, window, documents, dropout, rounds, draw)
                ratios = {
                    way: round(statistics.median(a / b for a, b in zip(seconds[way], seconds["documents"], strict=True)), 2)
                    for way in ("eager", "sdpa")
                }
                row = {"dtype": str(dtype)[6:], "window": window, "documents": documents, "dropout": dropout}
                micros = round(1e6 * statistics.median(seconds["documents"]) / POSITIONS, 1)
                print(json.dumps(row | {"times_faster_than": ratios, "microseconds_per_token": micros}), flush=True)


def measured(
    dtype: torch.dtype, window: int, documents: int, dropout: float | None, rounds: int, draw: random.Random
) -> dict[str, list[float]]:
    """dropout: None: forward alone."""
    gradients, dropout = dropout is not None, dropout or 0.0
    seconds: dict[str, list[float]] = {"eager": [], "sdpa": [], "documents": []}
    inputs = [torch.randn(POSITIONS // window, window, HEADS, SIZE).to(dtype).requires_grad_(gradients) for _ in range(3)]
    for number in range(WARM + rounds):
        segments = drawn(window, documents, draw)
        allowed = segments[:, None, :, None] == segments[:, None, None, :]
        added = torch.zeros(allowed.shape, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)
        for way, times in seconds.items():
            began = time.process_time()
            query, key, value = (one.transpose(1, 2) for one in inputs)
            if way == "documents":
                output = attend(query, key, value, segments, SIZE**-0.5, dropout)
            elif way == "sdpa":
                output = F.scaled_dot_product_attention(query, key, value, allowed, dropout_p=dropout).transpose(1, 2)
            else:
                maps = F.softmax(query @ key.mT * SIZE**-0.5 + added, -1)
                output = (F.dropout(maps, dropout) @ value).transpose(1, 2)
            if gradients:
                output.sum().backward()
            if number >= WARM:
                times.append(time.process_time() - began)
    return seconds


def drawn(window: int, documents: int, draw: random.Random) -> torch.Tensor:
    """[B, window]: rows of so many documents of random lengths."""
    segments = torch.ones(POSITIONS // window, window, dtype=torch.int64)
    for row in segments:
        for cut in draw.sample(range(8, window - 8), documents - 1):
            row[cut:] += 1
    return segments


if __name__ == "__main__":
    main()
