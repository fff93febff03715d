"""Who can reach the place where ranks meet: the interface that was chosen, and no other."""

import os
import socket
import time

import psutil
import pytest
from run_lines import free_port

from kd.distributed import rendezvous

RANK = """
import sys
import time
from pathlib import Path

import torch

from kd.distributed import process_group

process_group.start(60)
print("met", float(process_group.sum_over_ranks(torch.ones(1))), flush=True)
while not Path(sys.argv[1]).exists():
    time.sleep(0.01)
process_group.leave()
"""


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
def test_ranks_of_one_host_can_be_reached_from_nowhere_else(fork_server, tmp_path):
    script, leave, port = tmp_path / "rank.py", tmp_path / "leave", free_port()
    script.write_text(RANK)
    shared = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    logs = [tmp_path / f"rank-{rank}.log" for rank in range(2)]
    ranks = [
        fork_server.start([str(script), str(leave)], shared | {"RANK": str(r), "LOCAL_RANK": str(r)}, log, tmp_path)
        for r, log in enumerate(logs)
    ]
    try:
        end = time.monotonic() + 60
        while not all(log.exists() and "met 2.0\n" in log.read_text() for log in logs):
            assert time.monotonic() < end, [log.read_text() for log in logs]
            assert [rank.poll() for rank in ranks] == [None, None], [log.read_text() for log in logs]
            time.sleep(0.02)
        listening = [c.laddr for rank in ranks for c in psutil.Process(rank.pid).net_connections() if c.status == psutil.CONN_LISTEN]
        assert port in {address.port for address in listening}
        assert {address.ip for address in listening} <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
        leave.touch()
        assert [rank.wait(60) for rank in ranks] == [0, 0]
    finally:
        for rank in ranks:
            rank.kill()
            rank.wait()
