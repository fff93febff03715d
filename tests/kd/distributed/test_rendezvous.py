"""Who can reach the place where ranks meet: the interface that was chosen, and no other."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from kd.distributed import rendezvous

RANK = """
import sys
import torch
from kd.distributed import process_group
distributed.start(60)
print("met", float(distributed.sum_over_ranks(torch.ones(1))), flush=True)
sys.stdin.readline()
distributed.stop()
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "only_here"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("10.0.0.1", False), (socket.gethostname(), False), ("node17", False)],
)
def test_an_address_that_can_only_mean_this_host_is_known_by_its_writing(address: str, only_here: bool):
    assert rendezvous.stays_here(address) is only_here


def test_one_address_is_listened_on_and_a_strange_one_is_left_to_torch():
    port = free_port()
    listening = rendezvous.listen("127.0.0.1", port)
    assert listening is not None
    with listening:
        assert listening.getsockname() == ("127.0.0.1", port)
        assert rendezvous.listen("127.0.0.1", port) is None, "taken: torch will say so"
    assert rendezvous.listen("192.0.2.1", port) is None, "not an address of this host"
    assert rendezvous.listen("no-such-host.invalid", port) is None


@pytest.mark.slow
def test_ranks_of_one_host_can_be_reached_from_nowhere_else():
    shared = os.environ | {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    shared["PYTHONPATH"] = str(Path(__file__).parents[3])
    command = [sys.executable, "-W", "ignore", "-c", RANK]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    ranks = [subprocess.Popen(command, env=shared | {"RANK": str(r), "LOCAL_RANK": str(r)}, **pipes) for r in range(2)]
    try:
        assert [rank.stdout.readline() for rank in ranks] == ["met 2.0\n"] * 2
        listening = [c.laddr for rank in ranks for c in psutil.Process(rank.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert int(shared["MASTER_PORT"]) in {address.port for address in listening}
        assert {address.ip for address in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        for rank in ranks:
            rank.stdin.write("\n")
            rank.stdin.flush()
        assert [rank.wait(60) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.communicate()
