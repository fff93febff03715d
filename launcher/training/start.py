"""The decisions that all ranks share before a run: the owner of its folder, and the checkpoint from which it continues.

Rank 0 alone looks and writes; what it finds wrong is raised on every rank with the same words, so that none is left waiting.
"""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch

from kd.checkpoint import on_disk
from kd.checkpoint.on_disk import Checkpoint
from kd.distributed import process_group
from launcher.config.run_config import AnyRunConfig
from launcher.errors import LaunchError, RendezvousFailed, SharedError
from launcher.planning.cost.fit import MemoryNeed
from launcher.planning.devices.this_device import host_memory
from launcher.process.failures import is_lost_connection
from launcher.process.rank_zero import on_rank_zero
from launcher.process.standard_streams import say
from launcher.run_folder.folder import RunFolder
from launcher.text import size


def meet(timeout_seconds: float) -> None:
    """Join the other ranks. Raises RendezvousFailed when not all of them come."""
    try:
        process_group.start(timeout_seconds)
    except RuntimeError as error:
        if not is_lost_connection(error):  # no op, no memory, no thread: not the others' fault
            raise
        if process_group.world_size() == 1:
            raise LaunchError(f"network: expected an interface that is up, for one rank too, got {error}; ip link set lo up") from None
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RendezvousFailed(
            f"{place}: expected {process_group.world_size()} ranks to meet there within {timeout_seconds:.0f} s, got "
            f"{' '.join(str(error).split())[:200]}; see that each was started, and that rank 0's host lets them in"
        ) from None


def check_memory(need: MemoryNeed) -> None:
    """Raise SharedError, on every rank, where a host or GPU lacks the memory that its ranks plan to use. Collective.

    Memory that a rank holds already counts as there.
    """
    host, on_gpu = socket.gethostname(), process_group.device().type == "cuda"
    if on_gpu:
        device = process_group.device()
        place, held, free = f"{host} GPU {device.index}", torch.cuda.memory_reserved(device), torch.cuda.mem_get_info(device)[0]
    else:
        place, held, free = host, psutil.Process().memory_info().rss, host_memory()
    ranks = [json.loads(text) for text in process_group.texts(json.dumps([place, need.bytes - held, held, free]))]
    for where in dict.fromkeys(rank[0] for rank in ranks):
        here = [rank for rank in ranks if rank[0] == where]
        missing, available = sum(max(0, rank[1]) for rank in here), max(rank[3] for rank in here)
        if missing > available:
            share = (available + sum(rank[2] for rank in here)) // len(here)
            each = "a rank" if len(here) == 1 else f"each of {len(here)} ranks"
            raise SharedError(
                f"train.check_memory: expected {size(need.bytes)} for {each} on {where}, as planned, got {size(share)}; "
                f"{need.advice(share)}, or set train.check_memory=false to start all the same"
            )


@contextmanager
def open_folder(config: AnyRunConfig) -> Iterator[RunFolder]:
    """The run folder, owned by rank 0; when rank 0 cannot have it, every rank leaves with the same line."""
    if process_group.rank() != 0:
        on_rank_zero(lambda: None)
        yield RunFolder(Path(config.run.folder))
        return
    opened = RunFolder.open(config)
    folder = on_rank_zero(opened.__enter__)
    error: BaseException | None = None
    try:
        yield folder
    except BaseException as raised:
        error = raised
        raise
    finally:
        opened.__exit__(type(error) if error else None, error, None)


def newest_checkpoint(folder: RunFolder, before: int | None = None) -> Checkpoint | None:
    """The newest checkpoint that verifies, the same on every rank; rank 0 says what it passed over. before: of an update below it."""

    def find() -> str:
        newest, passed_over = on_disk.newest_good(folder.checkpoints, before)
        for line in passed_over:
            say(f"passed over: {line}")
        if newest is None and passed_over and before is None:
            raise LaunchError(
                f"{folder.checkpoints}: expected a usable checkpoint, got {len(passed_over)} damaged; restore one, or use another folder"
            )
        return newest.folder.name if newest is not None else ""

    name = process_group.from_rank_zero(on_rank_zero(find) or "")
    return on_disk.read(folder.checkpoints / name) if name else None
