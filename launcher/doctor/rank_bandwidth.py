"""The speed of the network between ranks: one sum over all ranks, timed, in a process group of its own. Rank 0 prints one JSON line.

`measure` starts two ranks on this host, or takes part in the world that srun or torchrun has made.
"""

import json
import os
import subprocess
import sys
import time
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from launcher.process import network
from launcher.process.rank_environment import rank_variables
from launcher.process.start_ranks import child_environment, rank_environments

BYTES = 16 << 20
REPEATS = 4
TIMEOUT_SECONDS = 60.0


def measure() -> dict[str, Any]:
    """backend, ranks, bytes_per_second (of the data each rank has to send), seconds_small (a sum of one number).

    Raises RuntimeError with the first reason when the ranks do not reach each other.
    """
    here = rank_variables()
    worlds = [here] if here else rank_environments(2)
    command = [sys.executable, "-W", "ignore", "-m", "launcher.doctor.rank_bandwidth"]
    ranks = [
        subprocess.Popen(command, env=child_environment() | own, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for own in worlds
    ]
    ends = []
    for rank in ranks:
        try:
            out, err = rank.communicate(timeout=2 * TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            rank.kill()
            out, err = *rank.communicate()[:1], f"no answer in {2 * TIMEOUT_SECONDS:.0f} s"
        ends.append((rank.returncode, out, err))
    for code, _, err in ends:
        if code:
            lines = [line for line in err.splitlines() if line.strip()] or [f"exit code {code}"]
            raise RuntimeError(lines[-1].strip()[:200])
    return dict(json.loads(ends[0][1])) if ends[0][1].strip() else {}


def main() -> None:
    """One rank."""
    network.choose_interface()
    gpu = torch.cuda.is_available() and torch.cuda.device_count() > int(os.environ["LOCAL_RANK"])
    backend = "nccl" if gpu else "gloo"
    if gpu:
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group(backend, timeout=timedelta(seconds=TIMEOUT_SECONDS))
    device = torch.device("cuda") if gpu else torch.device("cpu")
    data, small = torch.ones(BYTES // 4, device=device), torch.ones(1, device=device)

    def seconds(tensor: torch.Tensor) -> float:
        dist.all_reduce(tensor)
        float(tensor[0])
        began = time.perf_counter()
        for _ in range(REPEATS):
            dist.all_reduce(tensor)
        float(tensor[0])
        return (time.perf_counter() - began) / REPEATS

    world = dist.get_world_size()
    large, latency = seconds(data), seconds(small)
    if dist.get_rank() == 0:
        rate = 2 * (world - 1) / world * BYTES / large
        print(json.dumps({"backend": backend, "ranks": world, "bytes_per_second": rate, "seconds_small": latency}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
