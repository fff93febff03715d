"""One rank of tests/kd/training/test_counts.py: the counts of one update in two and in four micro-batches, as one JSON on rank 0.

Usage: counts_on_ranks.py RESULT.json TEACHER_FOLDER STUDENT_FOLDER
"""

import json
import sys
from itertools import product
from pathlib import Path

from counted_calls import CountedCalls
from trainer_on_ranks import ROWS, batches, make

from kd.distributed import process_group
from kd.models.loading import load_mlm


def main() -> None:
    result, teacher, folder = sys.argv[1:]
    process_group.start()
    rows, report = ROWS // process_group.world_size(), {}
    for precision, parts in product(("fp32", "bf16"), (2, 4)):
        student = load_mlm(folder)
        student.use_attention("sdpa")
        trainer = make(teacher, student, "replicated", 1, precision, rows // parts)
        trainer.update(batches(0, rows // parts))
        with CountedCalls() as counted:
            trainer.update(batches(1, rows // parts))
        report[f"{precision} {parts}"] = {"calls": counted.calls, "waits": counted.waits, "shapes": list(counted.shapes)}
        report[f"{precision} {parts}"] |= {"bytes": counted.bytes, "weights": sum(w.numel() for w in student.parameters())}
        report[f"{precision} {parts}"]["largest_float64"] = counted.largest_float64
    if process_group.rank() == 0:
        Path(result).write_text(json.dumps(report))
    process_group.leave()


if __name__ == "__main__":
    main()
