"""One rank of tests/kd/test_families.py: how far a ZeRO-3 teacher of each model folder is from the encoder itself, as JSON.

Usage: families_on_ranks.py RESULTS_FOLDER MODEL_FOLDER…   (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment)
"""

import json
import sys
from pathlib import Path

import torch

from kd import distributed
from kd.batch import IGNORED, Batch
from kd.models import load_mlm
from kd.teacher import TeacherSettings, make_teacher


def own_batch(rank: int) -> Batch:
    """2 rows of two documents and some padding; another one on each rank."""
    ids = torch.randint(5, 120, (2, 20), generator=torch.Generator().manual_seed(rank))
    segments = torch.tensor([1] * 9 + [2] * 8 + [0] * 3).expand(2, 20).clone()
    positions = torch.cat([torch.arange(9), torch.arange(11)]).expand(2, 20).clone()
    return Batch(ids, torch.full_like(ids, IGNORED), positions, segments, torch.arange(2))


def error(folder: str, batch: Batch) -> float:
    """The largest difference of hidden states and logits."""
    encoder = load_mlm(folder)
    with torch.no_grad():
        hidden = encoder(batch).last
        expected = encoder.logits(hidden[batch.real])
        teacher = make_teacher(TeacherSettings(model=folder, mode="zero3"), "fp32", distributed.device())
        for _ in range(2):
            outputs = teacher(batch, batch.real)
        with teacher.decoder() as (weight, bias):
            logits = outputs.transformed @ weight.T + bias
    assert any(weight.ds_tensor.numel() < weight.ds_numel for weight in teacher.module.parameters()), "nothing was shared out"
    return max((outputs.last - hidden)[batch.real].abs().max().item(), (logits - expected).abs().max().item())


def main(results: Path, folders: list[str]) -> None:
    torch.set_num_threads(1)
    distributed.start()
    batch = own_batch(distributed.rank())
    (results / f"rank-{distributed.rank()}.json").write_text(json.dumps({folder: error(folder, batch) for folder in folders}))
    distributed.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
