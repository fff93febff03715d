"""Ranks and their collectives: one process group, made once, with the backend that the machine has (NCCL or gloo).

Works the same for one process without a launcher and for ranks started by deepspeed, torchrun or srun. The variables RANK,
WORLD_SIZE, LOCAL_RANK, MASTER_ADDR and MASTER_PORT are read by torch. A process without them is a world of one.
"""

import io
import logging
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from datetime import timedelta
from typing import NoReturn

import deepspeed
import numpy as np
import torch
import torch.distributed as dist
from deepspeed.accelerator import get_accelerator
from deepspeed.runtime import compiler
from torch import Tensor
from torch.distributed.distributed_c10d import _get_default_store, _set_pg_timeout

from kd.distributed import rendezvous
from kd.kernels import fp32_products, host_memory


def start(timeout_seconds: float = 600.0) -> None:
    """Join the process group (idempotent), choose this processor's fp32 products, and keep freed memory.

    A world of one uses a private file instead of a port, so that two runs never collide.
    """
    if dist.is_initialized():
        return
    fp32_products.choose()
    host_memory.keep()
    # DeepSpeed 0.19 still calls the collectives by the names that torch 2.13 renames; nothing a user could do about it.
    warnings.filterwarnings("ignore", message=r".*torch\.distributed\..* is deprecated", category=FutureWarning)
    environment = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1"}
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    accelerator = get_accelerator()
    timeout = timedelta(seconds=timeout_seconds)
    if world_size() == 1 and "MASTER_PORT" not in os.environ:
        dist.init_process_group(accelerator.communication_backend_name(), store=dist.HashStore(), rank=0, world_size=1, timeout=timeout)
        os.environ["MASTER_PORT"] = "0"
    store = rendezvous.store(rank(), world_size(), timeout)
    if store is not None:
        backend = accelerator.communication_backend_name()
        dist.init_process_group(backend, store=store, rank=rank(), world_size=world_size(), timeout=timeout)
    _compile_nothing()
    with quiet():
        deepspeed.init_distributed(
            dist_backend=accelerator.communication_backend_name(), auto_mpi_discovery=False, verbose=False, timeout=timeout
        )


def _compile_nothing() -> None:
    """Keep DeepSpeed from two things that it compiles, or prepares to compile, for nothing. Call it before `init_distributed`.

    The shared-memory sum of CPU ranks is a C++ op that this project never calls. `init_distributed` looks it up in `__compatible_ops__`.
    DeepSpeed fills that table by a probe that starts a compiler, unless the table is there already.

    The optimizer Muon wraps its functions in torch.compile when it is imported, which every engine does. That import alone loads
    torch._inductor: 1.2 s of CPU time and 50 MB a rank.
    """
    vars(deepspeed.ops).setdefault("__compatible_ops__", {})["deepspeed_shm_comm"] = False
    compiler.compile = lambda: compiler.dummy_decorator


def wait_for_ever() -> None:
    """Remove the timeout of collectives. From now on launcher/training/rank_watch.py detects lost ranks.

    The group's own timeout cannot tell a lost rank from a busy one.
    """
    if dist.is_initialized():
        _set_pg_timeout(timedelta(days=7))


def stop() -> None:
    """Leave the process group, if there is one."""
    if dist.is_initialized():
        dist.destroy_process_group()


def leave() -> NoReturn:
    """End this process well, with all others, and at once.

    The interpreter's own end is skipped, because gloo's threads sometimes abort there and a finished run would count as failed. (Exit code
    -6, "terminate called without an active exception", twice in some hundred ends of two ranks, torch 2.13.)
    """
    barrier()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def rank() -> int:
    """This process's number, 0 .. world_size - 1."""
    return int(os.environ.get("RANK", "0"))


def world_size() -> int:
    """Number of processes that train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def device() -> torch.device:
    """The device of this rank."""
    accelerator = get_accelerator()
    if accelerator.device_name() == "cpu":
        return torch.device("cpu")
    local = int(os.environ.get("LOCAL_RANK", "0"))
    accelerator.set_device(local)
    return torch.device(accelerator.device_name(local))


def native_bf16() -> bool:
    """True if this processor or GPU multiplies bf16 matrices in hardware. Elsewhere bf16 is emulated and slower than fp32."""
    accelerator = get_accelerator()
    if accelerator.device_name() != "cpu":
        return bool(accelerator.is_bf16_supported())
    capabilities = torch.backends.cpu.get_cpu_capability(), torch.cpu.get_capabilities()
    return bool(capabilities[1].get("avx512_bf16") or capabilities[1].get("amx_bf16") or capabilities[1].get("arm_bf16"))


def sum_over_ranks(values: Tensor) -> Tensor:
    """The elementwise sum of a tensor over all ranks, in place."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(values)
    return values


def numbers_over_ranks(values: Sequence[float]) -> list[float]:
    """The sum of each number over all ranks, in fp32. A world of one asks no device."""
    if world_size() == 1:
        return list(values)
    totals: list[float] = sum_over_ranks(torch.tensor(values, dtype=torch.float32, device=device())).tolist()
    return totals


def barrier() -> None:
    """Wait until every rank is here."""
    if dist.is_initialized() and dist.get_world_size() > 1:
        dist.barrier()


def from_rank_zero(text: str) -> str:
    """Rank 0's text, on every rank. Collective."""
    if world_size() == 1:
        return text
    size = sum_over_ranks(torch.tensor([len(text.encode()) if rank() == 0 else 0], device=device()))
    data = torch.zeros(int(size), dtype=torch.uint8, device=device())
    if rank() == 0:
        data = torch.tensor(list(text.encode()), dtype=torch.uint8, device=device())
    if len(data):
        dist.broadcast(data, src=0)
    return bytes(data.tolist()).decode()


def texts(text: str) -> list[str]:
    """Every rank's text, in the order of ranks, on every rank. Collective."""
    if world_size() == 1:
        return [text]
    lengths = [0] * world_size()
    lengths[rank()] = len(text.encode())
    lengths = [int(n) for n in sum_over_ranks(torch.tensor(lengths, device=device())).tolist()]
    data = torch.zeros(sum(lengths), dtype=torch.int32, device=device())
    first = sum(lengths[: rank()])
    data[first : first + lengths[rank()]] = torch.from_numpy(np.frombuffer(text.encode(), np.uint8).astype(np.int32)).to(device())
    whole = sum_over_ranks(data).to(torch.uint8).cpu().numpy().tobytes()
    return [whole[sum(lengths[:r]) : sum(lengths[: r + 1])].decode() for r in range(world_size())]


def board(timeout_seconds: float) -> dist.Store | None:
    """A connection of its own to the store that the ranks met at, for another thread; None in a world of one."""
    if world_size() == 1:
        return None
    store: dist.Store = _get_default_store().clone()  # type: ignore[attr-defined]
    store.set_timeout(timedelta(seconds=timeout_seconds))
    return store


@contextmanager
def quiet() -> Iterator[None]:
    """DeepSpeed logs and prints dozens of lines while it starts; only its errors are for users."""
    logger = logging.getLogger("DeepSpeed")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
