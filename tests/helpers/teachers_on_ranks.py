"""One rank of tests/kd/teacher/test_teachers.py: updates with two teachers, mean and random, each teacher in its own mode, and continued.

Usage: teachers_on_ranks.py RESULT.json FIRST_TEACHER SECOND_TEACHER STUDENT_FOLDER CHECKPOINTS_FOLDER
(RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment)
"""

import json
import sys
from pathlib import Path

import torch
from trainer_on_ranks import CLIP, OPTIMIZER, ROWS, UPDATES, VOCABULARY, batches, weights

from kd.checkpoint import on_disk
from kd.checkpoint.checkpoint import load_state
from kd.distributed import process_group
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.teacher.settings import MemberSettings
from kd.teacher.teachers import make_teachers
from kd.terms import HiddenCosine, MaskedLM, SoftTargets
from kd.training.phases import phases_of
from kd.training.settings import TrainSettings
from kd.training.trainer import Trainer

SEED = 5
WEIGHTS = (3.0, 1.0)
TERMS = {
    "mean": [SoftTargets(weight=5), SoftTargets(temperature=1.0, teacher=1), MaskedLM(weight=2), HiddenCosine(teacher=0)],
    "random": [SoftTargets(weight=5), MaskedLM(weight=2)],
}


def make(folders: list[str], modes: tuple[str, str], combine: str, student: Encoder, stage: int) -> Trainer:
    micro_batch = ROWS // process_group.world_size() // 2
    train = TrainSettings(
        global_batch=ROWS, micro_batch=micro_batch, updates=UPDATES, zero_stage=stage, precision="fp32", clip=CLIP, chunk_tokens=50
    )
    members = [MemberSettings(model=folder, mode=mode, weight=weight) for folder, mode, weight in zip(folders, modes, WEIGHTS, strict=True)]
    return Trainer(
        student,
        make_teachers(members, combine, SEED, "fp32", process_group.device()),
        phases_of([], TERMS[combine], OPTIMIZER, UPDATES),
        vocabulary=VOCABULARY,
        train=train,
        precision="fp32",
    )


def main() -> None:
    result, first, second, folder, checkpoints = sys.argv[1:]
    process_group.start()
    micro_batch = ROWS // process_group.world_size() // 2
    report = {}
    for combine, modes, stage in (
        ("mean", ("zero3", "tensor_parallel"), 0),
        ("random", ("replicated", "zero3"), 3),
    ):
        way = f"{combine}-{'-'.join(modes)}"
        trainer = make([first, second], modes, combine, load_mlm(folder), stage)
        lines = []
        for update in range(UPDATES):
            lines.append(trainer.update(batches(update, micro_batch)))
            if update == 1:
                assert trainer.save(Path(checkpoints) / way, {}) is None
        process_group.barrier()
        saved, _ = on_disk.newest_good(Path(checkpoints) / way)
        assert saved is not None
        kept, _ = load_state(saved)
        again = load_mlm(folder)
        with torch.no_grad():
            for name, parameter in again.named_parameters():
                parameter.copy_(kept[f"student.{name}"])
        resumed = make([first, second], modes, combine, again, stage)
        resumed.load(saved)
        same = [resumed.update(batches(update, micro_batch)) for update in range(2, UPDATES)] == lines[2:]
        report[way] = {
            "losses": [line.loss for line in lines],
            "terms": [line.terms for line in lines],
            "bit_identical": same and all(torch.equal(w, weights(trainer)[name]) for name, w in weights(resumed).items()),
        }
    if process_group.rank() == 0:
        Path(result).write_text(json.dumps(report))
    process_group.leave()


if __name__ == "__main__":
    main()
