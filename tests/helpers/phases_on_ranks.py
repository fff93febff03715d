"""One rank of tests/kd/training/test_phases.py: a run of three phases at several ZeRO stages and precisions, continued around its borders.

Usage: phases_on_ranks.py RESULT.json TEACHER_FOLDER STUDENT_FOLDER CHECKPOINTS_FOLDER STAGE-PRECISION,…
(RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment)
"""

import gc
import json
import sys
from pathlib import Path

import torch
from trainer_on_ranks import CLIP, OPTIMIZER, ROWS, VOCABULARY, batches, weights

from kd.checkpoint import on_disk
from kd.checkpoint.checkpoint import load_state
from kd.distributed import process_group
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.teacher.settings import MemberSettings
from kd.teacher.teachers import make_teachers
from kd.training.phases import PhaseSettings, part_of, phases_of
from kd.training.settings import TrainSettings
from kd.training.trainer import Trainer

UPDATES = 5
COURSES = [1e-3, 1e-3, 5e-4, 2e-3 * 2 / 3, 2e-3 / 3]
"""Learning rates: constant and constant, each phase's own; then the run's, warm-up 2 and linear to 0."""
PHASES = [
    PhaseSettings.model_validate(
        {
            "name": "head",
            "updates": 2,
            "trains": ["head"],
            "objective": [{"kind": "mlm"}, {"kind": "cosine", "weight": {"schedule": "linear", "from": 0, "to": 3}}],
            "optimizer": {"learning_rate": 1e-3, "schedule": "constant", "warmup": 0},
        }
    ),
    PhaseSettings.model_validate(
        {
            "name": "layer",
            "share": 0.2,
            "trains": ["layers 1", "projections"],
            "objective": [{"kind": "hints", "layer_map": "final"}],
            "optimizer": {"learning_rate": 5e-4, "schedule": "constant", "warmup": 0},
        }
    ),
    PhaseSettings.model_validate(
        {
            "name": "all",
            "optimizer_state": "continue",
            "objective": [
                {
                    "kind": "soft_targets",
                    "temperature": {"schedule": "linear", "from": 4, "to": 2},
                    "weight": {"schedule": "steps", "values": [1, 5], "at": [0.5]},
                },
                {"kind": "mlm"},
            ],
        }
    ),
]


def make(teacher: str, student: Encoder, stage: int, precision: str) -> Trainer:
    micro_batch = ROWS // process_group.world_size() // 2
    train = TrainSettings(
        global_batch=ROWS, micro_batch=micro_batch, updates=UPDATES, zero_stage=stage, precision=precision, clip=CLIP, chunk_tokens=50
    )
    mode = "zero3" if stage == 3 else "replicated"
    return Trainer(
        student,
        make_teachers([MemberSettings(model=teacher, mode=mode)], "mean", 1, precision, process_group.device()),
        phases_of(PHASES, [], OPTIMIZER, UPDATES),
        vocabulary=VOCABULARY,
        train=train,
        precision=precision,
    )


def parts(trainer: Trainer, names: list[str]) -> list[str]:
    """The parts that these parameters belong to."""
    found = (part_of(trainer.student, name.removeprefix("student.")) for name in names)
    return sorted({part if layer is None else f"{part} {layer}" for part, layer in found})


def held() -> int:
    """Bytes of all tensors that this process holds."""
    gc.collect()
    storages = {}
    for one in gc.get_objects():
        if type(one) in (torch.Tensor, torch.nn.Parameter) and one.numel():
            storages[one.untyped_storage().data_ptr()] = one.untyped_storage().nbytes()
    return sum(storages.values())


def grown(trainer: Trainer) -> int:
    """By how many bytes more is held after two borders."""
    before = held()
    for phase in (trainer.phases[0], trainer.phases[-1]):
        trainer._cross(phase)
    return held() - before


def main() -> None:
    result, teacher, folder, checkpoints, ways = sys.argv[1:]
    process_group.start()
    micro_batch = ROWS // process_group.world_size() // 2
    report = {}
    for way in ways.split(","):
        stage, precision = int(way[0]), way[2:]
        kept = Path(checkpoints) / way
        trainer = make(teacher, load_mlm(folder), stage, precision)
        lines, moved, moments = [], [], []
        before = weights(trainer)
        for update in range(UPDATES):
            lines.append(trainer.update(batches(update, micro_batch)))
            after = weights(trainer)
            moved.append(parts(trainer, [name for name in after if name not in before or not torch.equal(after[name], before[name])]))
            moments.append(parts(trainer, [name for name, _, state in trainer.engine.full_state() if state]))
            before = after
            failed = trainer.save(kept, {})
            assert failed is None, failed
        process_group.barrier()
        continued = {}
        for done in (1, 2, 3):  # before the first border, at it, and after it at the second
            saved = on_disk.read(kept / f"update-{done:08d}")
            student = load_mlm(folder)
            loaded, _ = load_state(saved)
            with torch.no_grad():
                for name, parameter in student.named_parameters():
                    parameter.copy_(loaded[f"student.{name}"])
            again = make(teacher, student, stage, precision)
            again.load(saved)
            same = [again.update(batches(update, micro_batch)) for update in range(done, UPDATES)] == lines[done:]
            continued[done] = same and all(torch.equal(weight, after[name]) for name, weight in weights(again).items())
        report[way] = {
            "losses": [line.loss for line in lines],
            "rates": [line.learning_rate for line in lines],
            "phases": [line.phase for line in lines],
            "scheduled": [line.scheduled for line in lines],
            "terms": [list(line.terms) for line in lines],
            "moved": moved,
            "moments": moments,
            "continued": continued,
            "grown": grown(trainer),
        }
    if process_group.rank() == 0:
        Path(result).write_text(json.dumps(report))
    process_group.leave()


if __name__ == "__main__":
    main()
