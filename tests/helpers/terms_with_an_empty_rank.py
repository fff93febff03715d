"""One rank of tests/kd/terms/test_terms_with_an_empty_rank.py: each term alone. The second slot of an update holds nothing to look at.

Usage: terms_with_an_empty_rank.py RESULT.json TEACHER_FOLDER STUDENT_FOLDER
(RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment)
"""

import json
import sys
from pathlib import Path

import torch
from pydantic import TypeAdapter
from terms_on_ranks import COLUMNS, TERMS, VOCABULARY, row

from kd.batch import IGNORED, Batch
from kd.distributed import process_group
from kd.models.loading import load_mlm
from kd.teacher.settings import MemberSettings
from kd.teacher.teachers import make_teachers
from kd.terms import Term
from kd.terms.schedules import OptimizerSettings
from kd.training.phases import phases_of
from kd.training.settings import TrainSettings
from kd.training.trainer import Trainer

STAGES = (1, 2, 3)
LENGTHS = (0, 1)
"""Tokens of the second slot, by update: padding alone, as a skipped shard leaves it, then one document without a label."""
OPTIMIZER = OptimizerSettings(learning_rate=2e-3, warmup=0)


def batches(update: int, rank: int, world: int) -> list[Batch]:
    """This rank's micro-batches of one row."""
    empty = torch.zeros(COLUMNS, dtype=torch.int64)
    rest = torch.cat([torch.ones(LENGTHS[update], dtype=torch.int64), empty])[:COLUMNS]
    slots = [row(update, 0), [7 * rest, torch.full_like(empty, IGNORED), empty, rest]]
    return [Batch(*(column[None] for column in slots[slot]), torch.tensor([slot]), update, slot) for slot in range(rank, len(slots), world)]


def main() -> None:
    result, teacher, student = sys.argv[1:]
    torch.set_num_threads(1)
    process_group.start()
    rank, world = process_group.rank(), process_group.world_size()
    projected = [term | {"projection": "shared"} for term in TERMS if term["kind"] in ("similarity", "rkd_distance", "rkd_angle")]
    report = []
    for number, settings in enumerate([*TERMS, *projected]):
        train = TrainSettings(
            global_batch=2, micro_batch=1, updates=len(LENGTHS), zero_stage=STAGES[number % len(STAGES)], precision="fp32", chunk_tokens=50
        )
        trainer = Trainer(
            load_mlm(student),
            make_teachers([MemberSettings(model=teacher)], "mean", 1, "fp32", process_group.device()),
            phases_of([], TypeAdapter(list[Term]).validate_python([settings]), OPTIMIZER, len(LENGTHS)),
            vocabulary=VOCABULARY,
            train=train,
            precision="fp32",
        )
        reports = [trainer.update(batches(update, rank, world)) for update in range(len(LENGTHS))]
        weights = {name: weight.double().sum().item() for name, weight, _ in trainer.engine.full_state()}
        losses, norms = [one.loss for one in reports], [one.gradient_norm for one in reports]
        trainable = sum(weight.numel() for _, weight, moments in trainer.engine.full_state() if moments)
        buckets = [trainer.engine.engine.zero_reduce_bucket_size(), trainable]
        report.append({"term": settings, "losses": losses, "norms": norms, "weights": weights, "buckets": buckets})
    if rank == 0:
        Path(result).write_text(json.dumps(report))
    process_group.leave()


if __name__ == "__main__":
    main()
