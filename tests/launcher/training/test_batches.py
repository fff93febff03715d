"""Threads, ranks and interruptions only cut the same updates differently."""

import threading
import time
from collections.abc import Iterator
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
import torch

from data_shards.errors import DataError
from data_shards.stream.settings import StreamSettings
from data_shards.stream.stream import Stream
from kd.batch import Batch
from kd.distributed import process_group
from kd.training.settings import TrainSettings
from launcher.training.batches import BatchLoader, heldout_batches, largest_batches, to_batch, widened

GLOBAL, MICRO, WINDOW = 12, 2, 32
TENSORS = ("input_ids", "labels", "positions", "segments", "windows")


@pytest.fixture(scope="module")
def stream(corpus) -> Stream:
    return Stream(corpus.shards, "train", StreamSettings(window_tokens=WINDOW, lanes=4), GLOBAL)


@pytest.fixture
def make_loader(stream: Stream) -> Iterator[Any]:
    """make_loader(workers=0, rank=0, world=1, update=0, micro=MICRO, ahead=2): a loader that the test need not close."""
    made: list[BatchLoader] = []

    def make(workers: int = 0, rank: int = 0, world: int = 1, update: int = 0, micro: int = MICRO, ahead: int = 2) -> BatchLoader:
        train = TrainSettings(global_batch=GLOBAL, micro_batch=micro, updates=1, loader_workers=workers, prefetch_updates=ahead)
        made.append(BatchLoader(stream, train, rank=rank, world=world, update=update, windows=update * GLOBAL))
        return made[-1]

    yield make
    for loader in made:
        loader.close()


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in TENSORS) and (
        (one.update, one.first_slot) == (other.update, other.first_slot)
    )


def equal(ours: list[list[Batch]], theirs: list[list[Batch]]) -> bool:
    return all(
        len(a) == len(b) and all(same(one, other) for one, other in zip(a, b, strict=True)) for a, b in zip(ours, theirs, strict=True)
    )


def in_slots(batches: list[Batch], world: int) -> dict[int, tuple[Any, ...]]:
    """Slot of the global batch -> the row there, as lists."""
    rows = {}
    for batch in batches:
        for row in range(len(batch.windows)):
            rows[batch.first_slot + world * row] = tuple(getattr(batch, name)[row].tolist() for name in TENSORS)
    return rows


def test_a_batch_holds_the_streams_rows_as_int64(stream: Stream):
    rows = stream.batch(24, 0, 1, MICRO, 3)
    batch = to_batch(rows, update=2)
    for name in TENSORS:
        tensor = getattr(batch, name)
        assert tensor.dtype == torch.int64
        assert np.array_equal(tensor.numpy(), getattr(rows, name))
    assert (batch.update, batch.first_slot) == (2, 6)
    assert {field.name for field in fields(Batch) if field.init} == {*TENSORS, "update", "first_slot", "token_types"}
    assert batch.token_types is None


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_any_number_of_threads_gives_the_same_batches_in_the_same_order(make_loader, stream: Stream, workers: int):
    begin = stream.windows_per_epoch // GLOBAL - 5  # over the end of an epoch
    plain = make_loader(update=begin)
    expected = [plain.next_update() for _ in range(15)]
    threaded = make_loader(workers, update=begin, ahead=workers + 1)
    assert equal([threaded.next_update() for _ in range(15)], expected)


def test_an_update_is_micro_batches_of_the_size_asked_for(make_loader):
    for world, micro in ((1, 2), (1, 12), (2, 3), (3, 1)):
        batches = make_loader(world=world, micro=micro).next_update()
        assert [len(batch.windows) for batch in batches] == [micro] * (GLOBAL // world // micro)
        assert [batch.update for batch in batches] == [0] * len(batches)


@pytest.mark.parametrize(("world", "micro"), [(2, 3), (3, 2), (4, 1), (6, 2)])
def test_the_ranks_batches_together_are_the_batch_of_one_rank(make_loader, world: int, micro: int):
    one = make_loader(micro=GLOBAL)
    ranks = [make_loader(workers=1, rank=rank, world=world, micro=micro) for rank in range(world)]
    for _ in range(4):
        together: dict[int, Any] = {}
        for loader in ranks:
            together |= in_slots(loader.next_update(), world)
        assert together == in_slots(one.next_update(), 1)
        assert sorted(together) == list(range(GLOBAL))


@pytest.mark.parametrize("workers", [0, 2])
def test_starting_at_an_update_is_having_arrived_there(make_loader, workers: int):
    arrived = make_loader(workers)
    for _ in range(7):
        arrived.next_update()
    started = make_loader(workers, update=7)
    assert started.windows == arrived.windows == 7 * GLOBAL
    for expected_update in (7, 8, 9):
        ours, theirs = started.next_update(), arrived.next_update()
        assert equal([ours], [theirs])
        assert ours[0].update == expected_update
    assert started.windows == 10 * GLOBAL


def test_the_cursor_counts_what_was_taken_not_what_was_fetched(make_loader, stream: Stream, monkeypatch: pytest.MonkeyPatch):
    fetched: list[int] = []
    read = Stream.batch
    monkeypatch.setattr(Stream, "batch", lambda self, start, *rest: fetched.append(start) or read(self, start, *rest))
    loader = make_loader(workers=2, ahead=4)
    assert loader.windows == 0
    loader.next_update()
    end = time.monotonic() + 10
    while len(set(fetched)) < 4 and time.monotonic() < end:
        time.sleep(0.005)
    assert set(fetched) == {0, 12, 24, 36}
    assert loader.windows == GLOBAL
    loader.close()
    assert loader.windows == GLOBAL


def test_no_more_is_fetched_ahead_than_asked_for(make_loader, monkeypatch: pytest.MonkeyPatch):
    fetched: set[int] = set()
    read = Stream.batch
    monkeypatch.setattr(Stream, "batch", lambda self, start, *rest: fetched.add(start) or read(self, start, *rest))
    loader = make_loader(workers=3, ahead=1)
    loader.next_update()
    loader.next_update()
    time.sleep(0.05)
    assert fetched == {0, 12}


def test_waiting_is_counted_and_the_clock_can_be_set_back(make_loader, monkeypatch: pytest.MonkeyPatch):
    read = Stream.batch

    def slow(self: Stream, start: int, *rest: int) -> Any:
        time.sleep(0.01)
        return read(self, start, *rest)

    monkeypatch.setattr(Stream, "batch", slow)
    loader = make_loader(micro=GLOBAL)
    loader.next_update()
    loader.next_update()
    assert loader.waited_seconds >= 0.02
    loader.waited_seconds = 0.0
    loader.next_update()
    assert loader.waited_seconds >= 0.01


def test_an_error_of_a_thread_arrives_where_the_batch_is_taken(make_loader, monkeypatch: pytest.MonkeyPatch):
    def broken(self: Stream, start: int, *rest: int) -> Any:
        raise DataError("train-000001.tar: expected a good shard, got none; bring it back")

    monkeypatch.setattr(Stream, "batch", broken)
    with pytest.raises(DataError, match=r"train-000001\.tar"):
        make_loader(workers=1).next_update()


def test_closing_ends_the_threads_and_may_be_done_twice(make_loader):
    loader = make_loader(workers=2)
    loader.next_update()
    assert any(thread.name.startswith("loader") for thread in threading.enumerate())
    loader.close()
    loader.close()
    assert not any(thread.name.startswith("loader") for thread in threading.enumerate())


def test_heldout_batches_are_every_window_once_in_order(corpus):
    heldout = Stream(corpus.shards, "heldout", StreamSettings(window_tokens=WINDOW), 1)
    batches = list(heldout_batches(heldout, 4, None))
    assert torch.cat([batch.windows for batch in batches]).tolist() == list(range(heldout.windows_per_epoch))
    again = list(heldout_batches(heldout, 4, None))
    assert equal([batches], [again])
    assert all(batch.predicted.any() for batch in batches)


def test_heldout_batches_of_ranks_are_disjoint_and_complete(corpus):
    heldout = Stream(corpus.shards, "heldout", StreamSettings(window_tokens=WINDOW), 1)
    whole = list(heldout_batches(heldout, 4, None))
    parts = [list(heldout_batches(heldout, 4, None, rank=rank, world=2)) for rank in range(2)]
    assert equal([whole[0::2], whole[1::2]], parts)


@pytest.mark.parametrize(("windows", "batch", "world", "count"), [(8, 4, 1, 2), (9, 4, 1, 2), (8, 4, 2, 1), (1, 4, 2, 1), (8, 8, 1, 1)])
def test_a_limit_of_heldout_windows_is_whole_batches_a_rank(corpus, windows: int, batch: int, world: int, count: int):
    heldout = Stream(corpus.shards, "heldout", StreamSettings(window_tokens=WINDOW), 1)
    whole = list(heldout_batches(heldout, batch, None, world=world))
    assert equal([list(heldout_batches(heldout, batch, windows, world=world))], [whole[:count]])


def test_the_largest_batches_are_an_update_at_the_full_length_of_a_window(corpus):
    train = TrainSettings(global_batch=GLOBAL, micro_batch=MICRO, updates=1)
    whole = Stream(corpus.shards, "train", StreamSettings(window_tokens=WINDOW, lanes=4), GLOBAL)
    packed = largest_batches(whole, train, WINDOW)
    assert [batch.input_ids.shape for batch in packed] == [(MICRO, WINDOW)] * (GLOBAL // MICRO)
    documents = Stream(corpus.shards, "train", StreamSettings(window_tokens=WINDOW, packing="documents"), GLOBAL)
    for batch in largest_batches(documents, train, WINDOW):
        assert batch.input_ids.shape == (MICRO, WINDOW)
        assert batch.real.all()


def test_a_short_row_is_repeated_to_the_length_as_one_document():
    ids = torch.tensor([[2, 7, 3], [2, 8, 3]])
    labels = torch.tensor([[-100, 5, -100], [-100, 6, -100]])
    batch = widened(Batch(ids, labels, torch.arange(3).expand(2, 3), torch.ones_like(ids), torch.zeros(2, dtype=torch.int64)), 7)
    assert batch.input_ids.tolist() == [[2, 7, 3, 2, 7, 3, 2], [2, 8, 3, 2, 8, 3, 2]]
    assert batch.labels.tolist()[0] == [-100, 5, -100, -100, 5, -100, -100]
    assert batch.positions.tolist() == [list(range(7))] * 2
    assert batch.segments.tolist() == [[1] * 7] * 2
    assert widened(batch, 7) is batch


@pytest.mark.parametrize(("device", "times"), [("cpu", 0), ("cuda:0", 1)])
def test_the_threads_pin_batches_for_a_gpu_alone(make_loader: Any, monkeypatch: pytest.MonkeyPatch, device: str, times: int) -> None:
    pinned: list[tuple[Batch, str]] = []
    monkeypatch.setattr(process_group, "device", lambda: torch.device(device))
    monkeypatch.setattr(Batch, "pinned", lambda batch: (pinned.append((batch, threading.current_thread().name)), batch)[1])
    loader = make_loader(workers=1, ahead=1)
    batches = loader.next_update()
    loader.close()
    assert len([batch for batch, _ in pinned if any(batch is one for one in batches)]) == times * len(batches)
    assert all(name.startswith("loader") for _, name in pinned)
