"""Sizes of the vocabulary head's chunks and tiles, from the caches and the vocabulary. No torch: plans use it too.

A chunk is the rows of one matrix product: more rows make its products faster, and its logits exist in the weights' dtype.
A tile is the rows of a chunk that the terms read at a time, in fp32: its tensors stay in the second-level cache.
"""

from functools import cache
from pathlib import Path

CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
SECOND, LAST = 1 << 20, 32 << 20
"""Bytes of the caches where the machine does not tell."""
LEAST, MOST = 128, 512
"""Rows of a chunk on a CPU. Fewer: products are slow. More: they gain nothing (docs/decisions.md)."""
GPU_CHUNK, GPU_TILE = 1024, 256
"""A guess: no GPU was available."""


def chunk_rows(chunk_tokens: int | None, vocabulary: int, bytes_per_logit: int, device_type: str) -> int:
    """Rows of logits that exist at the same time.

    chunk_tokens: the setting. null on a CPU: as many as the last-level cache holds, within LEAST and MOST.
    """
    if chunk_tokens is not None:
        return chunk_tokens
    if device_type != "cpu":
        return GPU_CHUNK
    return min(MOST, max(LEAST, cache_bytes(3) // (vocabulary * bytes_per_logit)))


def tile_rows(chunk: int, vocabulary: int, device_type: str, threads: int = 1) -> int:
    """Rows of a chunk that are in fp32 at the same time. On a CPU [rows, V] takes twice the second-level cache, of each thread.

    Fewer rows would cost more operations than the cache saves.
    """
    if device_type != "cpu":
        return min(chunk, GPU_TILE)
    return max(1, min(chunk, threads * 2 * cache_bytes(2) // (4 * vocabulary)))


@cache
def cache_bytes(level: int) -> int:
    """Bytes of this machine's cache of level 2 or 3; SECOND or LAST where it is not known."""
    try:
        for folder in sorted(CACHES.glob("index*")):
            if int((folder / "level").read_text()) == level and (folder / "type").read_text().strip() != "Instruction":
                size = (folder / "size").read_text().strip()
                number = int(size.rstrip("KMG")) << {"K": 10, "M": 20, "G": 30}.get(size[-1], 0)
                if number > 0:
                    return number
    except (OSError, ValueError):
        pass
    return SECOND if level == 2 else LAST
