"""One rank of tests/kd/training/test_dropout.py: updates of a student with dropout, by micro-batch, as one JSON on rank 0.

Usage: dropout_on_ranks.py RESULT.json TEACHER_FOLDER STUDENT_FOLDER
(RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment)
"""

import json
import sys
from pathlib import Path

from trainer_on_ranks import ROWS, UPDATES, batches, make

from kd.distributed import process_group
from kd.models.loading import load_mlm


def main() -> None:
    result, teacher, folder = sys.argv[1:]
    process_group.start()
    report = {}
    whole = ROWS // process_group.world_size()
    for micro_batch, checkpointing, keyed in ((whole, False, True), (whole // 4, False, True), (2, True, True), (whole, False, False)):
        student = load_mlm(folder)
        student.use_attention("documents")
        if keyed:
            student.key_dropout()
        trainer = make(teacher, student, "replicated", 1, "fp32", micro_batch, checkpointing)
        name = f"{micro_batch}, checkpointing {checkpointing}" if keyed else "torch's dropout"
        report[name] = [trainer.update(batches(update, micro_batch)).loss for update in range(UPDATES)]
        assert (trainer.student.attention, trainer.snapshot().attention) == ("documents", "sdpa")
    if process_group.rank() == 0:
        Path(result).write_text(json.dumps(report))
    process_group.leave()


if __name__ == "__main__":
    main()
