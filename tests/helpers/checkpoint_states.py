"""Small states to write into checkpoints."""

import torch
from torch import Tensor

from kd.checkpoint.on_disk import Progress

State = list[tuple[str, Tensor, dict[str, Tensor]]]


def state(seed: int = 0, size: int = 7) -> State:
    draw = torch.Generator().manual_seed(seed)

    def tensor() -> Tensor:
        return torch.randn(size, 3, generator=draw)

    return [(f"student.layer{i}.weight", tensor(), {"exp_avg": tensor(), "exp_avg_sq": tensor()}) for i in range(2)] + [
        ("student.frozen", tensor(), {})
    ]


def progress(done: int, **facts: object) -> Progress:
    return Progress(done=done, skipped=1, tokens=done * 100, facts={"cursor": {"windows": done * 8}, **facts})
