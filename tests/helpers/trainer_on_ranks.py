"""One rank of tests/kd/training/test_trainer.py: the same updates at every ZeRO stage, precision and micro-batch, as one JSON on rank 0.

Usage: trainer_on_ranks.py RESULT.json TEACHER_FOLDER STUDENT_FOLDER CHECKPOINTS_FOLDER
(RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment)
"""

import json
import sys
from itertools import product
from pathlib import Path

import torch

from kd.batch import IGNORED, Batch
from kd.checkpoint import on_disk
from kd.checkpoint.checkpoint import load_state
from kd.distributed import process_group
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.teacher.settings import MemberSettings
from kd.teacher.teachers import make_teachers
from kd.terms import HiddenCosine, MaskedLM, SoftTargets
from kd.terms.schedules import OptimizerSettings
from kd.training.phases import phases_of
from kd.training.settings import TrainSettings
from kd.training.trainer import Trainer

VOCABULARY, ROWS, COLUMNS, UPDATES = 120, 8, 24, 4
OPTIMIZER = OptimizerSettings(learning_rate=2e-3, weight_decay=0.1, warmup=2)
CLIP = 0.5


def row(update: int, slot: int) -> list[torch.Tensor]:
    """ids, labels, positions, segments [S] of one slot: two documents, a padded tail and a number of predictions that differ by slot."""
    draw = torch.Generator().manual_seed(1000 * update + slot)
    ids = torch.randint(5, VOCABULARY, (COLUMNS,), generator=draw)
    first, padding = 6 + slot, slot % 5
    segments = torch.tensor([1] * first + [2] * (COLUMNS - first - padding) + [0] * padding)
    positions = torch.cat([torch.arange(first), torch.arange(COLUMNS - first)])
    predicted = (torch.rand(COLUMNS, generator=draw) < 0.1 + 0.05 * slot) & (segments > 0)
    return [ids, torch.where(predicted, ids, IGNORED), positions, segments]


def batches(update: int, micro_batch: int) -> list[Batch]:
    """This rank's micro-batches: slots i with i % world == rank, in order."""
    slots = range(process_group.rank(), ROWS, process_group.world_size())
    made = []
    for start in range(0, len(slots), micro_batch):
        part = slots[start : start + micro_batch]
        ids, labels, positions, segments = (torch.stack(column) for column in zip(*(row(update, slot) for slot in part), strict=True))
        made.append(Batch(ids, labels, positions, segments, torch.tensor(part), update, part[0]))
    return made


def make(
    teacher: str,
    student: Encoder,
    mode: str,
    stage: int,
    precision: str,
    micro_batch: int,
    checkpointing: bool = False,
    compiled: bool = False,
) -> Trainer:
    settings = TrainSettings(
        global_batch=ROWS,
        micro_batch=micro_batch,
        updates=UPDATES,
        zero_stage=stage,
        precision=precision,
        clip=CLIP,
        activation_checkpointing=checkpointing,
        compile=compiled,
        chunk_tokens=50,
    )
    return Trainer(
        student,
        make_teachers([MemberSettings(model=teacher, mode=mode)], "mean", 1, precision, process_group.device()),
        phases_of([], [SoftTargets(weight=5), MaskedLM(weight=2), HiddenCosine()], OPTIMIZER, UPDATES),
        vocabulary=VOCABULARY,
        train=settings,
        precision=precision,
    )


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {name: weight.clone() for name, weight, _ in trainer.engine.full_state()}


def main() -> None:
    result, teacher, folder, checkpoints = sys.argv[1:]
    process_group.start()
    report = {}
    whole = ROWS // process_group.world_size()
    for stage, (precision, micro_batch) in product((0, 1, 2, 3), (("fp32", whole // 4), ("fp32", whole), ("bf16", whole))):
        name = f"{stage}-{precision}-{micro_batch}"
        trainer = make(teacher, load_mlm(folder), "zero3" if stage == 3 else "replicated", stage, precision, micro_batch)
        lines = []
        for update in range(UPDATES):
            lines.append(trainer.update(batches(update, micro_batch)))
            if update == 1:
                failed = trainer.save(Path(checkpoints) / name, {"stage": stage})
                assert failed is None, failed
        after = weights(trainer)
        saved, passed_over = on_disk.newest_good(Path(checkpoints) / name)
        assert saved is not None, passed_over
        process_group.barrier()
        again = load_mlm(folder)
        kept, _ = load_state(saved)
        own = dict(again.named_parameters())
        with torch.no_grad():
            for key, weight in kept.items():
                own[key.removeprefix("student.")].copy_(weight)
        resumed = make(teacher, again, "zero3" if stage == 3 else "replicated", stage, precision, micro_batch)
        resumed.load(saved)
        continued = [resumed.update(batches(update, micro_batch)) for update in range(2, UPDATES)]
        trainer.roll_back(saved)
        counted = (trainer.done, trainer.skipped, trainer.tokens) == (UPDATES, UPDATES - 2, sum(line.tokens for line in lines))
        back = all(torch.equal(w, kept[k]) for k, w in weights(trainer).items())
        trainer.done, trainer.skipped = 2, 0  # only to take the same updates again
        trainer.tokens = sum(line.tokens for line in lines[:2])
        again = [trainer.update(batches(update, micro_batch)) for update in range(2, UPDATES)]
        report[name] = {
            "rolled_back": counted and back and again == lines[2:] and all(torch.equal(w, after[k]) for k, w in weights(trainer).items()),
            "losses": [line.loss for line in lines],
            "norms": [line.gradient_norm for line in lines],
            "rates": [line.learning_rate for line in lines],
            "tokens": [line.tokens for line in lines],
            "weights": {key: weight.double().sum().item() for key, weight in after.items()},
            "bit_identical": continued == lines[2:] and all(torch.equal(w, after[k]) for k, w in weights(resumed).items()),
            "snapshot": all(torch.equal(p, after[f"student.{n}"].reshape(p.shape)) for n, p in resumed.snapshot().named_parameters()),
        }
    for stage in (1, 3):
        trainer = make(teacher, load_mlm(folder), "replicated", stage, "fp32", 2, checkpointing=True)
        report[f"{stage}-checkpointing"] = {"losses": [trainer.update(batches(update, 2)).loss for update in range(UPDATES)]}
    for stage, precision in ((0, "fp32"), (1, "bf16"), (2, "fp32"), (3, "fp32"), (3, "bf16")):
        trainer = make(teacher, load_mlm(folder), "replicated", stage, precision, 2)
        trainer.update(batches(0, 2))
        before = weights(trainer)
        poison = next(p for p in trainer.teachers.members[0].module.parameters() if p.dim() == 1)
        kept = poison.data.clone()
        poison.data.fill_(float("nan"))
        bad = trainer.update(batches(1, 2))
        poison.data.copy_(kept)
        good = trainer.update(batches(2, 2))
        report[f"{stage}-{precision}-nan"] = {
            "named": bad.cause.startswith("the teacher's") and not good.cause,
            "skipped": not bad.applied,
            "untouched": bad.update == 2 and trainer.skipped == 1,
            "went_on": good.applied and all(torch.isfinite(w).all().item() for w in weights(trainer).values()),
            "moved": any(not torch.equal(w, before[k]) for k, w in weights(trainer).items()),
        }
    assert "torch._inductor.compile_fx" not in sys.modules, "something prepares to compile"
    if process_group.rank() == 0:
        Path(result).write_text(json.dumps(report))
    process_group.leave()


if __name__ == "__main__":
    main()
