"""One rank of tests/kd/models/test_families.py: of each model folder, how far its ZeRO-3 teacher is from the encoder itself, and the
losses of a
student of it that trains under ZeRO-1 and ZeRO-3, as JSON.

Usage: families_on_ranks.py RESULTS_FOLDER MODEL_FOLDER…   (RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment)
"""

import json
import sys
from pathlib import Path

import torch

from kd.batch import IGNORED, Batch
from kd.distributed import process_group
from kd.models.loading import load_mlm
from kd.student.settings import StudentSettings
from kd.student.student import make_student
from kd.teacher.settings import MemberSettings, TeacherSettings
from kd.teacher.teachers import make_teacher, make_teachers
from kd.terms.hidden import HiddenCosine
from kd.terms.logits import MaskedLM, SoftTargets
from kd.terms.schedules import OptimizerSettings
from kd.training.phases import phases_of
from kd.training.settings import TrainSettings
from kd.training.trainer import Trainer

UPDATES = 3


def own_batch(rank: int) -> Batch:
    """2 rows of two documents and some padding; another one on each rank."""
    ids = torch.randint(5, 120, (2, 20), generator=torch.Generator().manual_seed(rank))
    segments = torch.tensor([1] * 9 + [2] * 8 + [0] * 3).expand(2, 20).clone()
    positions = torch.cat([torch.arange(9), torch.arange(11)]).expand(2, 20).clone()
    labels = ids.where(ids % 4 == 0, torch.tensor(IGNORED))
    return Batch(ids, labels, positions, segments, torch.arange(2))


def error(folder: str, batch: Batch) -> float:
    """The largest difference of hidden states and logits."""
    encoder = load_mlm(folder)
    with torch.no_grad():
        hidden = encoder(batch).last_hidden
        expected = encoder.logits(hidden[batch.real])
        teacher = make_teacher(TeacherSettings(model=folder, mode="zero3"), "fp32", process_group.device())
        for _ in range(2):
            outputs = teacher(batch, batch.real)
        with teacher.decoder() as (weight, bias):
            logits = outputs.transformed @ weight.T + bias
    assert any(weight.ds_tensor.numel() < weight.ds_numel for weight in teacher.module.parameters()), "nothing was shared out"
    return max((outputs.last_hidden - hidden)[batch.real].abs().max().item(), (logits - expected).abs().max().item())


def losses(folder: str, stage: int, batch: Batch) -> list[float]:
    """Of a student of half the layers and its teacher, both shared out at stage 3."""
    student = make_student(StudentSettings(architecture="same", dropout=0.0), load_mlm(folder), 1)
    teacher = MemberSettings(model=folder, mode="zero3" if stage == 3 else "replicated")
    optimizer = OptimizerSettings(learning_rate=3e-3, warmup=0)
    trainer = Trainer(
        student,
        make_teachers([teacher], "mean", 1, "fp32", process_group.device()),
        phases_of([], [SoftTargets(), MaskedLM(), HiddenCosine()], optimizer, UPDATES),
        vocabulary=student.vocabulary,
        train=TrainSettings(global_batch=4, micro_batch=2, updates=UPDATES, zero_stage=stage, precision="fp32", chunk_tokens=7),
        precision="fp32",
    )
    return [trainer.update([batch]).loss for _ in range(UPDATES)]


def main(results: Path, folders: list[str]) -> None:
    torch.set_num_threads(1)
    process_group.start()
    batch = own_batch(process_group.rank())
    report = {
        folder: {"error": error(folder, batch), "zero1": losses(folder, 1, batch), "zero3": losses(folder, 3, batch)} for folder in folders
    }
    (results / f"rank-{process_group.rank()}.json").write_text(json.dumps(report))
    process_group.leave()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
