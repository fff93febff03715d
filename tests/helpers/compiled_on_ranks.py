"""One rank of tests/kd/training/test_compiled.py: updates with and without train.compile, and continued ones, as one JSON on rank 0.

Usage: compiled_on_ranks.py RESULT.json TEACHER_FOLDER STUDENT_FOLDER CHECKPOINTS_FOLDER
(RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment)
"""

import json
import sys
from pathlib import Path

import torch
from torch._dynamo.utils import counters
from trainer_on_ranks import ROWS, UPDATES, batches, make, weights

from kd.checkpoint import on_disk
from kd.checkpoint.checkpoint import load_state
from kd.distributed import process_group
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm

CASES = (("fp32", 2, True), ("fp32", 1, False), ("bf16", 1, False))
"""Precision, ZeRO stage, activation checkpointing. Two ranks take the first one."""


def main() -> None:
    result, teacher, folder, checkpoints = sys.argv[1:]
    process_group.start()
    report = {}
    micro_batch = ROWS // process_group.world_size() // 2

    def student() -> Encoder:
        made = load_mlm(folder)
        made.use_attention("documents")
        made.key_dropout()
        return made

    for precision, stage, checkpointing in CASES[: 3 // process_group.world_size()]:
        name = f"{precision}, stage {stage}, checkpointing {checkpointing}"
        plain = make(teacher, student(), "replicated", stage, precision, micro_batch, checkpointing)
        lines = [plain.update(batches(update, micro_batch)) for update in range(UPDATES)]
        torch._dynamo.reset()
        before = counters["stats"]["unique_graphs"]
        trainer = make(teacher, student(), "replicated", stage, precision, micro_batch, checkpointing, compiled=True)
        compiled = [trainer.update(batches(update, micro_batch)) for update in range(2)]
        failed = trainer.save(Path(checkpoints) / name, {})
        assert failed is None, failed
        graphs = counters["stats"]["unique_graphs"] - before
        compiled += [trainer.update(batches(update, micro_batch)) for update in range(2, UPDATES)]
        process_group.barrier()
        saved, passed_over = on_disk.newest_good(Path(checkpoints) / name)
        assert saved is not None, passed_over
        again = student()
        again.load_weights({key.removeprefix("student."): value for key, value in load_state(saved).weights.items()})
        torch._dynamo.reset()  # as another process would, it compiles again
        resumed = make(teacher, again, "replicated", stage, precision, micro_batch, checkpointing, compiled=True)
        resumed.load(saved)
        continued = [resumed.update(batches(update, micro_batch)) for update in range(2, UPDATES)]
        after, own, others = weights(trainer), weights(plain), weights(resumed)
        report[name] = {
            "said": trainer.compiled,
            "graphs": graphs,
            "more_graphs": counters["stats"]["unique_graphs"] - before - 2 * graphs,
            "losses": [[line.loss for line in one] for one in (lines, compiled)],
            "norms": [[line.gradient_norm for line in one] for one in (lines, compiled)],
            "names": list(after) == list(own),
            "furthest": max((after[key] - own[key]).abs().max().item() for key in own),
            "bit_identical": continued == compiled[2:] and all(torch.equal(w, after[key]) for key, w in others.items()),
            "plain_copies": all("forward" not in vars(module) for module in trainer.snapshot().modules()),
        }
    if process_group.rank() == 0:
        Path(result).write_text(json.dumps(report))
    process_group.leave()


if __name__ == "__main__":
    main()
