"""The stream: one global batch whatever the ranks, micro-batches, threads and interruptions."""

from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
import pytest

from data_shards.errors import DataError
from data_shards.stream.cursor import Cursor
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream, StreamBatch

G = 16
FIELDS = ("input_ids", "labels", "segments", "positions", "windows", "visits")


def open_stream(folder, **settings) -> Stream:
    return Stream(folder, "train", StreamSettings(**{"window_tokens": 16, "lanes": 5, **settings}), G)


def assembled(stream: Stream, start: int, world: int, micro: int, workers: int) -> StreamBatch:
    """The global batch, put together from what every rank gets; several threads ask in no particular order."""
    tasks = [(rank, index) for index in range(G // (world * micro)) for rank in range(world)][::-1]
    with ThreadPoolExecutor(workers) as pool:
        parts = list(pool.map(lambda task: stream.batch(start, task[0], world, micro, task[1]), tasks))
    width = max(part.input_ids.shape[1] for part in parts)
    whole = {name: np.zeros((G, width) if name in FIELDS[:4] else G, getattr(parts[0], name).dtype) for name in FIELDS}
    whole["labels"][:] = -100
    for part in parts:
        slots = part.first_slot + world * np.arange(micro)
        for name in FIELDS:
            value = getattr(part, name)
            whole[name][(slots, slice(value.shape[1])) if value.ndim == 2 else slots] = value
    return StreamBatch(**whole, first_slot=0)


def equal(one: StreamBatch, other: StreamBatch) -> bool:
    return all(np.array_equal(getattr(one, name), getattr(other, name)) for name in FIELDS)


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize(("world", "micro"), [(1, 16), (1, 4), (2, 8), (2, 1), (4, 4), (4, 2), (8, 2), (16, 1)])
@pytest.mark.parametrize("packing", ["windows", "documents"])
def test_sixteen_combinations_of_ranks_micro_batches_and_workers_make_the_same_global_batches(shards, packing, world, micro, workers):
    stream, other = open_stream(shards, packing=packing, bin_width=4), open_stream(shards, packing=packing, bin_width=4)
    for start in (0, G, 7 * G, (stream.windows_per_epoch // G) * G):
        expected = stream.batch(start, 0, 1, G, 0)
        assert equal(assembled(other, start, world, micro, workers), expected)
        assert expected.windows.tolist() == stream.slots(start)[0].tolist()


def test_interrupted_at_every_step_twice_the_updates_are_the_same(shards):
    updates = 6
    stream = open_stream(shards)
    undisturbed = [stream.batch(n * G, 0, 1, G, 0) for n in range(updates)]
    for stops in combinations(range(1, updates), 2):
        cursor, served = stream.cursor(), []
        for (world, micro), stop in zip(((1, 16), (2, 4), (4, 4)), (*stops, updates), strict=True):
            fresh = open_stream(shards)
            cursor = Cursor.from_dict(cursor.as_dict())
            fresh.check(cursor)
            fresh.batch(cursor.windows + G, 0, 1, G, 0)  # fetched, never consumed
            while len(served) < stop:
                served.append(assembled(fresh, cursor.windows, world, micro, workers=2))
                cursor = fresh.cursor(cursor.windows + G)
        assert all(equal(one, other) for one, other in zip(served, undisturbed, strict=True))


@pytest.mark.parametrize("packing", ["windows", "documents"])
def test_an_epoch_serves_every_window_once_and_the_next_starts_in_the_same_update(shards, packing):
    stream = open_stream(shards, packing=packing, window_tokens=15)
    total = stream.windows_per_epoch
    assert total % G, "else this test shows nothing"
    updates = -(-2 * total // G)
    windows, visits = (np.concatenate(parts) for parts in zip(*(stream.slots(n * G) for n in range(updates)), strict=True))
    for epoch in (0, 1):
        assert sorted(windows[visits == epoch].tolist()) == list(range(total))
    assert windows[visits == 0].tolist() != windows[visits == 1].tolist()


def test_a_window_is_masked_otherwise_at_its_second_visit(shards):
    stream = open_stream(shards)
    total = stream.windows_per_epoch
    labels = {}
    for n in range(-(-2 * total // G)):
        batch = stream.batch(n * G, 0, 1, G, 0)
        labels |= {(int(w), int(v)): row.tobytes() for w, v, row in zip(batch.windows, batch.visits, batch.labels, strict=True)}
    changed = sum(labels[window, 0] != labels[window, 1] for window in range(total))
    assert changed > 0.9 * total


def test_labels_restore_the_row_that_was_masked(shards):
    batch = open_stream(shards).batch(0, 0, 1, G, 0)
    sequential = next(iter(open_stream(shards).sequential(10_000)))
    original = np.where(sequential.labels == -100, sequential.input_ids, sequential.labels)
    assert np.array_equal(np.where(batch.labels == -100, batch.input_ids, batch.labels), original[batch.windows])


def test_sequential_reading_serves_every_window_in_order_also_to_several_ranks(shards):
    stream = open_stream(shards)
    parts = list(stream.sequential(10))
    assert np.concatenate([part.windows for part in parts]).tolist() == list(range(stream.windows_per_epoch))
    assert {len(part.windows) for part in parts[:-1]} == {10}
    assert not any(part.visits.any() for part in parts)
    dealt = [part.windows.tolist() for rank in range(3) for part in stream.sequential(10, rank, 3)]
    assert sorted(dealt) == [part.windows.tolist() for part in parts]


def test_document_batches_are_as_wide_as_their_bin_on_every_rank(shards):
    stream = open_stream(shards, packing="documents", window_tokens=40, bin_width=8)
    widths = {stream.batch(0, rank, 4, 4, 0).input_ids.shape[1] for rank in range(4)}
    assert len(widths) == 1
    assert widths <= {8, 16, 24, 32, 40}


def test_the_fingerprint_tells_streams_apart_but_not_folders_or_caches(shards, tmp_path, make_shards, random_documents):
    stream = open_stream(shards)
    make_shards(tmp_path / "same", random_documents(120, seed=1), random_documents(9, seed=2))
    make_shards(tmp_path / "other", random_documents(120, seed=5), random_documents(9, seed=2))
    assert open_stream(tmp_path / "same", cache_folder="x").fingerprint == stream.fingerprint
    others = [
        open_stream(tmp_path / "other"),
        open_stream(shards, seed=2),
        open_stream(shards, masking={"rate": 0.3}),
        open_stream(shards, lanes=6),
    ]
    assert len({other.fingerprint for other in others} | {stream.fingerprint}) == 5
    with pytest.raises(DataError, match="the shards or the stream settings have changed"):
        others[0].check(stream.cursor(G))


@pytest.mark.parametrize("values", [{}, {"windows": 1}, {"windows": -1, "fingerprint": "a"}, {"windows": True, "fingerprint": "a"},
                                    {"windows": 1, "fingerprint": "a", "more": 0}])  # fmt: skip
def test_a_cursor_of_another_shape_is_refused(values):
    with pytest.raises(DataError, match="cursor: expected windows and fingerprint"):
        Cursor.from_dict(values)


@pytest.mark.parametrize(("world", "micro", "line"), [(3, 1, r"multiple of ranks x micro_batch = 3 x 1, got 16"), (2, 5, "2 x 5, got 16")])
def test_contradictory_arithmetic_is_refused(shards, world, micro, line):
    with pytest.raises(DataError, match=line):
        open_stream(shards).batch(0, 0, world, micro, 0)


def test_fewer_windows_than_one_global_batch_are_refused(shards):
    with pytest.raises(DataError, match=r"expected at least one global batch of 100000 windows, got \d+; lower"):
        Stream(shards, "train", StreamSettings(), 100_000)
    with pytest.raises(DataError, match="global_batch: expected at least 1, got 0"):
        Stream(shards, "train", StreamSettings(), 0)
