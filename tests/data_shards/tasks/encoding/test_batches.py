"""Padded batches: real rows unchanged, padding marked, results put back by row."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from data_shards.tasks.encoding.batches import padded, sequential
from data_shards.tasks.encoding.encode import encode
from data_shards.tasks.encoding.encoded import IGNORED, EncodedTask
from data_shards.tasks.examples import Examples
from data_shards.tasks.settings import TaskDataSettings


@pytest.fixture(scope="module")
def task(wordpiece, texts) -> EncodedTask:
    words = [text.split() for text in texts[:60]]
    tags = [["A"] * len(row) for row in words]
    settings = TaskDataSettings(kind="tagging", train="unused", max_length=44)
    examples = Examples("train", "tagging", texts[:60], None, words, tags, [""] * 60, None, [""] * 60)
    return encode(examples, AutoTokenizer.from_pretrained(wordpiece), settings, ["A"])


def test_a_batch_is_as_wide_as_its_longest_row_rounded_up_to_eight(task):
    short = np.argsort(task.lengths, kind="stable")[:4]
    batch = padded(task, short)
    longest = int(task.lengths[short].max())
    assert batch.input_ids.shape == (4, -(-longest // 8) * 8)
    for row, number in enumerate(short):
        size = task.lengths[number]
        real = slice(task.offsets[number], task.offsets[number + 1])
        assert batch.input_ids[row, :size].tolist() == task.ids[real].tolist()
        assert set(batch.input_ids[row, size:].tolist()) <= {task.pad_id}
        assert batch.segments[row].tolist() == [1] * size + [0] * (batch.segments.shape[1] - size)
        assert batch.labels[row, :size].tolist() == task.labels[real].tolist()
        assert set(batch.labels[row, size:].tolist()) <= {IGNORED}


def test_rounding_does_not_exceed_max_length(task):
    assert padded(task, [int(task.lengths.argmax())]).input_ids.shape[1] == 44


@pytest.mark.parametrize(("batch", "world"), [(1, 1), (7, 1), (7, 3), (64, 2)])
def test_scoring_serves_every_row_once_over_all_ranks(task, batch, world):
    served = [one.rows for rank in range(world) for one in sequential(task, batch, rank, world)]
    assert sorted(np.concatenate(served).tolist()) == list(range(60))
    widths = [one.input_ids.shape[1] for one in sequential(task, batch)]
    assert widths == sorted(widths)
