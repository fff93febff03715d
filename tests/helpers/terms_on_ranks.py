"""One rank of tests/kd/terms/test_terms_on_ranks.py: every term, with every kind of teacher, ZeRO stage, micro-batch; as one JSON on
rank 0.

Usage: terms_on_ranks.py RESULT.json TEACHER_FOLDER STUDENT_FOLDER CHECKPOINTS_FOLDER
(RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment)
"""

import json
import sys
from pathlib import Path

import torch
from pydantic import TypeAdapter

from kd.batch import IGNORED, Batch
from kd.checkpoint import on_disk
from kd.checkpoint.checkpoint import load_state
from kd.distributed import process_group
from kd.models.loading import load_mlm
from kd.teacher.settings import MemberSettings
from kd.teacher.teachers import make_teachers
from kd.terms import Term
from kd.terms.schedules import OptimizerSettings
from kd.training.phases import phases_of
from kd.training.settings import TrainSettings
from kd.training.trainer import Trainer

VOCABULARY, ROWS, COLUMNS, UPDATES = 120, 4, 24, 2
OPTIMIZER = OptimizerSettings(learning_rate=2e-3, weight_decay=0.1, warmup=2)
TERMS = [
    {"kind": "soft_targets", "divergence": "jensen_shannon", "top_k": 20},
    {"kind": "soft_targets", "positions": "masked", "alpha": 0.3},
    {"kind": "mlm"},
    {"kind": "logit_mse", "weight": 0.01},
    {"kind": "cosine", "projection": "shared"},
    {"kind": "hidden_mse", "layer_map": "mean", "projection": "shared"},
    {"kind": "embedding_mse", "projection": "shared"},
    {"kind": "hints", "layer_map": [{"student": 0, "teacher": 1}], "weight": 0.1},
    {"kind": "pkd", "projection": "each"},
    {"kind": "attention_kl", "layer_map": "uniform"},
    {"kind": "attention_mse", "layer_map": "every_other"},
    {"kind": "attention_mse", "of": "distributions", "layer_map": "mean"},
    {"kind": "relations", "heads": 8},
    {"kind": "relations", "relations": ["vv", "qv"], "layer_map": [{"student": -1, "teacher": 2}]},
    {"kind": "similarity", "group_rows": 1},
    {"kind": "rkd_distance", "group_rows": 1, "pooling": "first"},
    {"kind": "rkd_angle", "group_rows": 1},
    {"kind": "contrastive", "group_rows": 1, "projection": "shared"},
]
# (teacher mode, of several teachers joined by +, ZeRO stage, precision, micro-batch, activation checkpointing)
WAYS = [
    ("replicated", 0, "fp32", 1, False),
    ("zero3", 3, "fp32", 1, True),
    ("tensor_parallel", 2, "fp32", 2, True),
    ("zero3", 3, "bf16", 2, False),
    ("tensor_parallel", 1, "bf16", 2, False),
    ("zero3+tensor_parallel", 3, "fp32", 2, False),  # of two copies of one teacher: what they teach together, it teaches alone
]


def row(update: int, slot: int) -> list[torch.Tensor]:
    """ids, labels, positions, segments [S] of one slot: three documents, and a padded tail that differs by slot."""
    draw = torch.Generator().manual_seed(1000 * update + slot)
    ids = torch.randint(5, VOCABULARY, (COLUMNS,), generator=draw)
    lengths = [4 + slot, 6, COLUMNS - 10 - 2 * slot, slot]
    segments = torch.tensor([1] * lengths[0] + [2] * lengths[1] + [3] * lengths[2] + [0] * lengths[3])
    positions = torch.cat([torch.arange(n) for n in lengths])
    predicted = (torch.rand(COLUMNS, generator=draw) < 0.2 + 0.1 * slot) & (segments > 0)
    return [ids, torch.where(predicted, ids, IGNORED), positions, segments]


def batches(update: int, micro_batch: int, rank: int, world: int) -> list[Batch]:
    """A rank's micro-batches: slots i with i % world == rank, in order."""
    slots = range(rank, ROWS, world)
    made = []
    for start in range(0, len(slots), micro_batch):
        part = slots[start : start + micro_batch]
        ids, labels, positions, segments = (torch.stack(column) for column in zip(*(row(update, slot) for slot in part), strict=True))
        made.append(Batch(ids, labels, positions, segments, torch.tensor(part), update, part[0]))
    return made


def make(teacher: str, student: str, mode: str, stage: int, precision: str, micro_batch: int, checkpointing: bool) -> Trainer:
    members = [MemberSettings(model=teacher, mode=one, weight=weight) for one, weight in zip(mode.split("+"), (3.0, 1.0), strict=False)]
    terms = TypeAdapter(list[Term]).validate_python(TERMS)
    if len(members) > 1:  # each other term on states learns from each
        terms = [
            term.model_copy(update={"teacher": n % 2}) if term.required_outputs and not term.mixes else term for n, term in enumerate(terms)
        ]
    return Trainer(
        load_mlm(student),
        make_teachers(members, "mean", 1, precision, process_group.device()),
        phases_of([], terms, OPTIMIZER, UPDATES),
        vocabulary=VOCABULARY,
        train=TrainSettings(
            global_batch=ROWS,
            micro_batch=micro_batch,
            updates=UPDATES,
            zero_stage=stage,
            precision=precision,
            clip=0.5,
            activation_checkpointing=checkpointing,
            chunk_tokens=50,
        ),
        precision=precision,
    )


def main() -> None:
    result, teacher, student, checkpoints = sys.argv[1:]
    torch.set_num_threads(1)
    process_group.start()
    rank, world = process_group.rank(), process_group.world_size()
    report = {}
    for way in WAYS if world > 1 else WAYS[:1] + WAYS[3:4]:
        micro_batch = way[3]
        name = "-".join(map(str, way))
        trainer = make(teacher, student, *way)
        lines = [trainer.update(batches(0, micro_batch, rank, world))]
        failed = trainer.save(Path(checkpoints) / name, {})
        assert failed is None, failed
        lines += [trainer.update(batches(update, micro_batch, rank, world)) for update in range(1, UPDATES)]
        after = {key: weight.clone() for key, weight, _ in trainer.engine.full_state()}
        saved, passed_over = on_disk.newest_good(Path(checkpoints) / name)
        assert saved is not None, passed_over
        process_group.barrier()
        resumed = make(teacher, student, *way)
        kept, _ = load_state(saved)
        resumed.engine.set_weights({key: weight for key, weight in kept.items() if key.startswith("student.")})
        resumed.load(saved)
        continued = [resumed.update(batches(update, micro_batch, rank, world)) for update in range(1, UPDATES)]
        report[name] = {
            "terms": [line.terms for line in lines],
            "norms": [line.gradient_norm for line in lines],
            "weights": {key: weight.double().sum().item() for key, weight in after.items()},
            "bit_identical": continued == lines[1:] and all(torch.equal(w, after[k]) for k, w, _ in resumed.engine.full_state()),
            "snapshot": sorted(name for name, _ in resumed.snapshot().named_parameters()),
        }
    if rank == 0:
        Path(result).write_text(json.dumps(report))
    process_group.leave()


if __name__ == "__main__":
    main()
