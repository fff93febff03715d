"""Small tensors become numbers with one read."""

import torch
from counted_calls import CountedCalls

from kd.distributed import process_group
from kd.training.read_back import read_together


def test_values_are_exact_and_one_read_brings_all_of_them():
    tensors = [torch.tensor([1 / 3, 1e300], dtype=torch.float64), torch.tensor(0.1), torch.zeros(0), torch.tensor([[7], [8]])]
    with CountedCalls() as counted:
        values = read_together(tensors)
    assert values == [[1 / 3, 1e300], [float(torch.tensor(0.1))], [], [7.0, 8.0]]
    assert sum(counted.waits.values()) == 1


def test_a_rank_alone_asks_no_device_for_its_own_flags(monkeypatch):
    monkeypatch.setattr(process_group, "device", lambda: torch.device("meta"))  # which has no values
    assert process_group.numbers_over_ranks([True, False, 2.5]) == [1, 0, 2.5]
