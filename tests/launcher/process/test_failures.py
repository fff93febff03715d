"""Out-of-memory errors and lost connections are recognised in the words of torch and numpy."""

import pytest
import torch
import torch.distributed as dist

from launcher.process.failures import is_lost_connection, memory_asked_for


def test_an_allocation_that_fails_says_how_much_it_asked_for():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(1 << 62, dtype=torch.uint8)
    assert memory_asked_for(caught.value) == "4,611,686 TB"


@pytest.mark.parametrize(
    ("error", "asked"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has"), "2.50 GiB"),
        (MemoryError("Unable to allocate 7.45 GiB for an array"), "7.45 GiB"),
        (MemoryError(), "more than there is"),
        (RuntimeError("expected scalar type Float"), None),
    ],
)
def test_memory_is_recognised_in_the_words_of_torch_and_numpy(error: Exception, asked: str | None):
    assert memory_asked_for(error) == asked


@pytest.mark.parametrize(
    ("error", "lost"),
    [
        (RuntimeError("[pair.cc:547] Connection closed by peer [127.0.0.1]:1234"), True),
        (RuntimeError("Application timeout caused pair closure: Timed out waiting 4000ms for recv"), True),
        (dist.DistNetworkError("failed to recv"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("Connection closed by peer"), False),
    ],
)
def test_a_lost_peer_is_told_from_a_bug(error: Exception, lost: bool):
    assert is_lost_connection(error) == lost
