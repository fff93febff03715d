"""Model FLOPs utilisation: the FLOPs of updates in closed form, against matrix products that were timed at the start."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from kd.batch import Batch
from kd.distributed import process_group
from kd.training.trainer import Trainer
from kd.training.update_report import UpdateReport
from launcher.planning.cost.operations import flops_of_batches
from launcher.planning.cost.workload import Workload
from launcher.planning.devices.gemm import best_gemm_rate


def measured_gemm_rate(precision: str) -> float:
    """FLOP/s of matrix products in a precision, all ranks at once and added up. Collective."""
    rate = best_gemm_rate(precision, process_group.device())
    return float(process_group.sum_over_ranks(torch.tensor([rate], dtype=torch.float64, device=process_group.device())))


def described(precision: str, rate: float) -> dict[str, Any]:
    """The measured rate, for environment.json."""
    ranks = process_group.world_size()
    return {"precision": precision, "tflops": rate / 1e12, "tflops_per_rank": rate / ranks / 1e12}


class UpdateFlops:
    """The FLOPs of updates: forward passes of the teachers, forward and backward pass of the student, and the heads.

    Activations that checkpointing computes again do not count. A backward pass counts as two forward passes, also where some weights are
    frozen.
    """

    def __init__(self, work: Workload | None, trainer: Trainer) -> None:
        """work: None: not known, so all counts are 0."""
        self._work = None if work is None else replace(work, checkpointing=False)
        self._trainer = trainer

    def of(self, batches: Sequence[Batch], report: UpdateReport) -> float:
        """Of the update that was just made, on all ranks. batches: this rank's; the others count as much."""
        if self._work is None:
            return 0.0
        teachers, objective = self._trainer.teachers, self._trainer.module.objective
        present = teachers.present(report.update - 1)
        used = [n for n, member in enumerate(teachers.members) if member in present and objective.needs_of(n)]
        on_logits = len(objective.on_logits) if self._work.logit_terms else 0
        work = replace(self._work, teachers=tuple(self._work.teachers[n] for n in used), logit_terms=on_logits)
        world, everywhere = process_group.world_size(), any(not term.masked_only for term in objective.on_logits)
        selected = (report.tokens if everywhere else report.predicted) / world if on_logits else 0.0
        shapes = [(batch.input_ids.shape[0], batch.input_ids.shape[1]) for batch in batches]
        return world * flops_of_batches(work, shapes, selected).total
