"""One rank of tests/kd/teacher/test_teacher.py: every mode of every model folder on this rank's own batch, as JSON.

Usage: teacher_on_ranks.py RESULTS_FOLDER MODEL_FOLDER…   (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment)
"""

import json
import sys
from pathlib import Path

import psutil
import torch
from torch import Tensor

from kd.batch import IGNORED, Batch
from kd.distributed import process_group
from kd.models.loading import load_mlm
from kd.teacher.settings import TeacherSettings
from kd.teacher.split import gather_batches
from kd.teacher.teacher import Teacher
from kd.teacher.teachers import make_teacher

MODES = ("replicated", "zero3", "tensor_parallel")
WARM_STEPS, STEPS = 80, 50


def own_batch(rank: int) -> Batch:
    """rank + 2 rows of 20 + 4 x rank positions: two documents and 3 padded positions each, so that ranks differ in shape and content."""
    rows, columns = rank + 2, 20 + 4 * rank
    input_ids = torch.randint(5, 120, (rows, columns), generator=torch.Generator().manual_seed(rank))
    segments = torch.cat([torch.full((rows, 9), 1), torch.full((rows, columns - 12), 2), torch.zeros(rows, 3).long()], dim=1)
    positions = torch.cat([torch.arange(9), torch.arange(columns - 9)]).expand(rows, columns).clone()
    return Batch(input_ids, torch.full_like(input_ids, IGNORED), positions, segments, torch.arange(rows))


def logits(teacher: Teacher, batch: Batch, selected: Tensor) -> tuple[Tensor, Tensor]:
    """(last at the real positions, logits at the selected ones)."""
    outputs = teacher(batch, selected)
    with teacher.decoder() as (weight, bias):
        return outputs.last_hidden[batch.real], outputs.transformed @ weight.T + bias


def measure(folder: str, mode: str, precision: str, batch: Batch) -> dict[str, object]:
    """What one teacher does, against the encoder itself."""
    selected = batch.real & (batch.input_ids % 3 == 0)
    encoder = load_mlm(folder)
    with torch.no_grad():
        hidden = encoder(batch).last_hidden
        expected = hidden[batch.real], encoder.logits(hidden[selected])
    teacher = make_teacher(TeacherSettings(model=folder, mode=mode), precision, process_group.device())
    during: list[int] = []
    for module in teacher.module.modules():  # after DeepSpeed's own hooks: the module's weights are gathered when these run
        module.register_forward_pre_hook(lambda *_: during.append(teacher.bytes_per_rank))
    first = logits(teacher, batch, selected)
    teacher.module.train()
    second = logits(teacher, batch, selected)
    return {
        "error": max((got.float() - want).abs().max().item() for got, want in zip(first, expected, strict=True)),
        "same_twice": all(torch.equal(a, b) for a, b in zip(first, second, strict=True)),
        "needs_gradients": any(t.requires_grad for t in first) or any(p.requires_grad for p in teacher.module.parameters()),
        "bytes": teacher.bytes_per_rank,
        "bytes_during": max(during),
        "bytes_whole": sum(p.numel() * p.element_size() for p in encoder.parameters()),
    }


def grown_bytes(folder: str, mode: str, batch: Batch) -> dict[str, int]:
    """How much the process and the teacher grew over STEPS passes, after WARM_STEPS in which memory is still reserved."""
    teacher = make_teacher(TeacherSettings(model=folder, mode=mode), "fp32", process_group.device())
    process, sizes = psutil.Process(), []
    for steps in (WARM_STEPS, STEPS):
        for _ in range(steps):
            logits(teacher, batch, batch.real)
        sizes.append((process.memory_info().rss, teacher.bytes_per_rank))
    return {"process": sizes[1][0] - sizes[0][0], "teacher": sizes[1][1] - sizes[0][1]}


def main(results: Path, folders: list[str]) -> None:
    torch.set_num_threads(1)
    process_group.start()
    rank, world = process_group.rank(), process_group.world_size()
    batch = own_batch(rank)
    report: dict[str, object] = {
        f"{Path(folder).name} {mode} {precision}": measure(folder, mode, precision, batch)
        for folder in folders
        for mode in MODES
        for precision in ("fp32", "bf16")
    }
    if world > 1:
        together, mine = gather_batches(batch)
        report["gathered"] = {
            "shape": list(together.input_ids.shape),
            "mine": torch.equal(together.input_ids[mine], batch.input_ids),
            "real": int(together.real.sum()),
        }
        report["grown"] = {mode: grown_bytes(folders[0], mode, batch) for mode in MODES}
    (results / f"rank-{rank}.json").write_text(json.dumps(report))
    process_group.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
