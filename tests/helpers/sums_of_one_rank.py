"""One rank of tests/kd/training/test_trainer.py: updates with and without DeepSpeed's sum of gradients over one rank, as JSON.

Usage: sums_of_one_rank.py RESULT.json TEACHER_FOLDER STUDENT_FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from trainer_on_ranks import UPDATES, batches, make

from kd.distributed import process_group
from kd.models.loading import load_mlm


def main() -> None:
    """Write, by stage and precision: the number of summed buckets as the engine is made, and whether a sum changes a weight."""
    result, teacher, student = sys.argv[1:]
    process_group.start(60)
    report = {}
    for stage, precision in ((0, "fp32"), (1, "fp32"), (0, "bf16"), (1, "bf16")):
        weights, buckets = [], []
        for summed in (None, True):
            trainer = make(teacher, load_mlm(student), "replicated", stage, precision, 4)
            engine = trainer.engine.engine
            if summed:
                engine.enable_backward_allreduce = True
            calls: list[int] = []
            original = engine.allreduce_bucket
            engine.allreduce_bucket = lambda *arguments, calls=calls, original=original: calls.append(1) or original(*arguments)
            for update in range(UPDATES):
                trainer.update(batches(update, 4))
            weights.append([parameter.detach().clone() for parameter in trainer.snapshot().parameters()])
            buckets.append(len(calls))
        same = all(torch.equal(one, other) for one, other in zip(*weights, strict=True))
        report[f"stage {stage}, {precision}"] = {"buckets": buckets, "same": same}
    Path(result).write_text(json.dumps(report))
    process_group.stop()


if __name__ == "__main__":
    main()
