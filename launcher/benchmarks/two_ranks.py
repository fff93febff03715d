"""Figures of two ranks that run at the same time: messages, layers of teachers that are split, and what sharing the caches costs."""

import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from transformers import BertConfig

from kd.batch import IGNORED, Batch
from kd.distributed import process_group
from kd.models.loading import untrained
from kd.teacher.modes import MODES
from kd.teacher.settings import TeacherSettings
from kd.teacher.teacher import FrozenEncoder, Teacher
from launcher.benchmarks import rates
from launcher.planning.devices.gemm import DTYPES, wait

SMALL, LARGE = 4096, 32 << 20
"""Bytes of the all-reduces whose time gives the latency and the rate."""
FEW, MANY, WIDTH, TOKENS = 2, 8, 64, 4
"""Layers of the teachers that are timed, their width, and the tokens of a pass."""
REPETITIONS = 8
HEAD_TOKENS, HEAD_WIDTH = 480, 256


def two_ranks(where: torch.device) -> dict[str, Any]:
    """Figures by their names in Measured. Collective."""
    return {
        "all_reduce": all_reduce("fp32", where),
        "all_reduce_bf16": all_reduce("bf16", where),
        "teacher_layer_us": {mode: teacher_layer_us(mode, where) for mode in ("zero3", "tensor_parallel")},
        "together": together(where),
    }


def all_reduce(precision: str, where: torch.device) -> tuple[float, float]:
    """(seconds of a small all-reduce, GB/s of a large one)."""
    small, large = (_fastest(partial(_sum, _zeros(count, precision, where)), where) for count in (SMALL, LARGE))
    return small, LARGE / max(1e-9, large - small) / 1e9  # two ranks: 2 (n - 1) / n is 1


def teacher_layer_us(mode: str, where: torch.device) -> float:
    """Microseconds that a layer of a teacher in this mode takes longer than one of a whole teacher, in a pass of few tokens."""
    split, whole = (_pass(name, MANY, where) - _pass(name, FEW, where) for name in (mode, "replicated"))
    return 1e6 * max(0.0, split - whole) / (MANY - FEW)


def _pass(mode: str, layers: int, where: torch.device) -> float:
    sizes: dict[str, Any] = {"num_hidden_layers": layers, "hidden_size": WIDTH, "num_attention_heads": 2, "intermediate_size": 4 * WIDTH}
    module = FrozenEncoder(untrained(BertConfig(vocab_size=1000, max_position_embeddings=16, **sizes)).to(torch.bfloat16).eval())
    teacher: Teacher = MODES[mode].make(module, TeacherSettings(model="none", mode="replicated"), where)
    ids = torch.arange(TOKENS, device=where)[None]
    batch = Batch(ids, torch.full_like(ids, IGNORED), ids, torch.ones_like(ids), ids[:, 0])
    selected = torch.zeros(ids.shape, dtype=torch.bool, device=where)
    with torch.no_grad():
        teacher.forward(batch, selected, frozenset())  # its first pass plans the gathers
        return _fastest(lambda: teacher.forward(batch, selected, frozenset()), where)


def together(where: torch.device) -> float:
    """Time of the head while both ranks compute it, over its time while the other rank waits."""
    both = rates.head_seconds("fp32", HEAD_TOKENS, HEAD_WIDTH, where)
    alone: list[float] = []
    for rank in range(process_group.world_size()):
        process_group.barrier()
        if rank == process_group.rank():
            alone.append(rates.head_seconds("fp32", HEAD_TOKENS, HEAD_WIDTH, where))
    process_group.barrier()
    shared = process_group.sum_over_ranks(torch.tensor([both / alone[0]], dtype=torch.float64, device=where))
    return max(1.0, float(shared) / process_group.world_size())


def _zeros(count: int, precision: str, where: torch.device) -> torch.Tensor:
    dtype = DTYPES[precision]
    return torch.zeros(count // dtype.itemsize, dtype=dtype, device=where)


def _sum(values: torch.Tensor) -> None:
    torch.distributed.all_reduce(values)


def _fastest(action: Callable[[], object], where: torch.device) -> float:
    """Wall seconds of the fastest of a few calls that all ranks begin together: what a message waits for is part of its time."""
    taken = []
    for _ in range(REPETITIONS):
        process_group.barrier()
        started = time.perf_counter()
        action()
        wait(where)
        taken.append(time.perf_counter() - started)
    return min(taken)
