"""Sizes of the head's chunks and tiles: the caches, the vocabulary and the setting decide."""

import pytest

from kd.objective import chunks
from kd.objective.chunks import cache_bytes, chunk_rows, tile_rows


@pytest.fixture
def caches(monkeypatch):
    def given(second: int, last: int) -> None:
        monkeypatch.setattr(chunks, "cache_bytes", lambda level: second if level == 2 else last)

    return given


def test_a_chunks_logits_fit_the_last_cache(caches):
    caches(1 << 20, 32 << 20)
    assert chunk_rows(None, 30522, 4, "cpu") == 274
    assert chunk_rows(None, 30522, 2, "cpu") == 512  # at most
    assert chunk_rows(None, 250_000, 4, "cpu") == 128  # at least
    assert chunk_rows(None, 30522, 2, "cuda") == 1024
    assert chunk_rows(48, 30522, 2, "cpu") == chunk_rows(48, 30522, 2, "cuda") == 48


def test_a_tile_takes_twice_the_second_cache_of_each_thread(caches):
    caches(1 << 20, 32 << 20)
    assert tile_rows(512, 30522, "cpu") == 17
    assert tile_rows(512, 30522, "cpu", threads=4) == 68
    assert tile_rows(8, 30522, "cpu") == 8
    assert tile_rows(512, 1_000_000, "cpu") == 1
    assert tile_rows(1024, 30522, "cuda") == 256


def test_cache_sizes_are_read_from_the_system_or_assumed(monkeypatch, tmp_path):
    for number, (level, kind, size) in enumerate([("1", "Data", "48K"), ("2", "Unified", "2048K"), ("3", "Unified", "105M")]):
        folder = tmp_path / f"index{number}"
        folder.mkdir()
        for name, text in (("level", level), ("type", kind), ("size", size)):
            (folder / name).write_text(f"{text}\n")
    monkeypatch.setattr(chunks, "CACHES", tmp_path)
    cache_bytes.cache_clear()
    assert (cache_bytes(2), cache_bytes(3)) == (2 << 20, 105 << 20)
    monkeypatch.setattr(chunks, "CACHES", tmp_path / "none")
    cache_bytes.cache_clear()
    assert (cache_bytes(2), cache_bytes(3)) == (1 << 20, 32 << 20)
    cache_bytes.cache_clear()
