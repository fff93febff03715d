"""One update after the other: teacher, student, objective, engine. Knows no file, no reporter and no signal; `launcher` drives it.

An update, on every rank:
1. counts: how many tokens each term looks at in the whole update, over all ranks and micro-batches;
2. for each micro-batch: teacher outputs, then the student's share of the loss and its gradients;
3. one clipped step, skipped on all ranks if a gradient is not finite;
4. the terms' sums over all ranks, as one report.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM

from kd import checkpoint, distributed
from kd.batch import Batch
from kd.capture import capture
from kd.checkpoint import Checkpoint, Progress
from kd.engine import StudentEngine
from kd.errors import KdError
from kd.head import Decoder
from kd.models import Encoder
from kd.objective import ModelOutputs, Objective
from kd.projections import make_projections
from kd.schedules import OptimizerSettings, learning_rate
from kd.settings import TrainSettings
from kd.states import Shape
from kd.teacher import Teacher

STUDENT = "student."  # how the student's own parameters begin in a checkpoint; the others are projections


@dataclass(frozen=True)
class UpdateReport:
    """What one update did. update counts finished updates (1 after the first); losses are means per token over all ranks."""

    update: int
    loss: float
    terms: dict[str, float]
    gradient_norm: float
    learning_rate: float
    applied: bool
    tokens: int
    predicted: int


class Lesson(nn.Module):
    """The student, projections and objective as one module: what DeepSpeed wraps. forward gives (loss share [], sums [K])."""

    def __init__(self, student: Encoder, objective: Objective, vocabulary: int, seed: int = 1) -> None:
        super().__init__()
        self.student = student
        self.projections = make_projections(objective, seed)
        self.objective = objective
        self.vocabulary = vocabulary

    def forward(self, batch: Batch, teacher: ModelOutputs | None, divisors: Tensor) -> tuple[Tensor, Tensor]:
        """One micro-batch. divisors [K]: the update's global token count of each term."""
        last, states = capture(self.student, batch, self.objective.student_states)
        transformed = self.student.transform(last[self.objective.selected(batch)])
        decoder = Decoder(self.student.decoder_weight, self.student.decoder_bias, self.vocabulary)
        return self.objective(ModelOutputs(last, transformed, decoder, states), teacher, batch, divisors, dict(self.projections))


class Trainer:
    """A student, what teaches it, and how far it has come."""

    def __init__(
        self,
        student: Encoder,
        teacher: Teacher | None,
        objective: Objective,
        *,
        vocabulary: int,
        train: TrainSettings,
        optimizer: OptimizerSettings,
        updates: int,
        precision: str,
    ) -> None:
        objective = objective.settled(Shape.of(student), teacher.shape if teacher is not None else None)
        missing = objective.needs - (teacher.offers if teacher is not None else frozenset())
        if missing:
            raise KdError(f"objective: expected a teacher that offers {', '.join(sorted(missing))}, got none that does; change either")
        self.student = student
        self.teacher = teacher
        self.objective = objective
        self.vocabulary = vocabulary
        self.settings = train
        self.optimizer = optimizer
        self.updates = updates
        self.device = distributed.device()
        self.done = 0
        """Finished updates, skipped ones included."""
        self.skipped = 0
        self.bad_in_a_row = 0
        self.tokens = 0
        if train.activation_checkpointing:
            student.hf.gradient_checkpointing_enable({"use_reentrant": train.zero_stage == 3})
        student.train()
        self.engine = StudentEngine(Lesson(student, objective, vocabulary, train.seed), train, optimizer, precision)

    @property
    def steps(self) -> int:
        """Updates that moved the weights: AdamW's own count."""
        return self.done - self.skipped

    def update(self, batches: Sequence[Batch]) -> UpdateReport:
        """Learn from this rank's micro-batches of the next update. Collective."""
        rate = learning_rate(self.optimizer, self.done, self.updates)
        self.engine.set_learning_rate(rate)
        batches = [batch.to(self.device) for batch in batches]
        seen = torch.stack([torch.stack([batch.real.sum(), batch.predicted.sum()]) for batch in batches]).sum(0).double()
        counts = torch.stack([self.objective.counts(batch) for batch in batches]).sum(0)
        totals = distributed.sum_over_ranks(torch.cat([counts, seen]))
        divisors = totals[: len(counts)]
        sums = torch.zeros_like(divisors)
        for batch in batches:
            self._seed_dropout(batch)
            with self._teach(batch) as taught:
                sums += self.engine.micro_step(batch, taught, divisors)
        norm, applied = self.engine.finish_update()
        means = (distributed.sum_over_ranks(sums) / divisors.clamp(min=1)).tolist()
        tokens, predicted = (int(n) for n in totals[len(counts) :].tolist())
        self.done += 1
        self.tokens += tokens
        self.skipped += not applied
        self.bad_in_a_row = 0 if applied else self.bad_in_a_row + 1
        loss = sum(weight * mean for weight, mean in zip(self.objective.weights, means, strict=True))
        names = self.objective.names
        return UpdateReport(self.done, loss, dict(zip(names, means, strict=True)), norm, rate, applied, tokens, predicted)

    def snapshot(self, dtype: torch.dtype = torch.float32) -> Encoder:
        """The student as it is now, whole and by itself, for evaluation and export. Collective; every rank gets one."""
        with torch.random.fork_rng(devices=[]):
            copy = Encoder(AutoModelForMaskedLM.from_config(self.student.hf.config, dtype=dtype))
        own = dict(copy.named_parameters())
        with torch.no_grad():
            for name, weight, _ in self.engine.full_state():
                if name.startswith(STUDENT):
                    own[name.removeprefix(STUDENT)].copy_(weight)
        return copy.to(self.device).eval()

    def save(self, folder: Path, facts: dict[str, Any]) -> str | None:
        """Write a checkpoint; None, or why it could not be written. Collective: all ranks get the same answer."""
        progress = Progress(self.done, self.skipped, self.tokens, facts)
        state = self.engine.full_state()
        failed = ""
        if distributed.rank() == 0:
            try:
                checkpoint.write(folder, progress, state)
            except OSError as error:
                failed = str(error) or repr(error)
        for _ in state:  # the other ranks take part in gathering
            pass
        return distributed.from_rank_zero(failed) or None

    def load(self, saved: Checkpoint) -> None:
        """Go on from a checkpoint. Collective. The student must have been given its weights before this trainer was made."""
        weights, moments = saved.load()
        self.done, self.skipped, self.tokens = saved.progress.done, saved.progress.skipped, saved.progress.tokens
        self.engine.set_weights({name: weight for name, weight in weights.items() if not name.startswith(STUDENT)})
        self.engine.load_full_state(weights, moments, self.steps)

    def _seed_dropout(self, batch: Batch) -> None:
        """Dropout is a function of (seed, update, first slot): a checkpoint needs no random state."""
        key = (self.settings.seed * 0x9E3779B97F4A7C15 + batch.update * 0xBF58476D1CE4E5B9 + batch.first_slot * 0x94D049BB133111EB) % 2**63
        torch.manual_seed(key)

    @contextmanager
    def _teach(self, batch: Batch) -> Iterator[ModelOutputs | None]:
        """The teacher's outputs for a batch; a sharded decoder is whole only while inside."""
        if self.teacher is None:
            yield None
            return
        outputs = self.teacher(batch, self.objective.selected(batch), self.objective.teacher_states)
        if "logits" not in self.objective.needs:
            yield ModelOutputs(outputs.last, states=outputs.states)
            return
        with self.teacher.decoder() as (weight, bias):
            yield ModelOutputs(outputs.last, outputs.transformed, Decoder(weight, bias, self.vocabulary), outputs.states)
