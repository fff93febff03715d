"""Runs updates: teacher, student, objective, engine. Knows no file, no reporter and no signal; `launcher` drives it.

An update, on every rank:
0. if it is the first of a phase: another objective, another choice of what trains, an engine of its own;
1. counts: how many tokens each term looks at in the whole update, over all ranks and micro-batches;
2. for each micro-batch: teacher outputs, then the student's share of the loss and its gradients;
3. one clipped step, skipped on all ranks if a gradient is not finite;
4. the terms' sums over all ranks, as one report.
"""

import gc
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kd.batch import Batch
from kd.checkpoint import checkpoint
from kd.checkpoint.checkpoint import STUDENT, FullState, State, load_state
from kd.checkpoint.on_disk import Checkpoint, Progress
from kd.copies import moved
from kd.distributed import process_group
from kd.distributed.precision import choose_gpu_products
from kd.distributed.rank_progress import WRITING, RankProgress
from kd.errors import KdError
from kd.kernels.dropout import Key, set_key
from kd.models.attention.document_attention import DOCUMENTS
from kd.models.compiled_layers import compile_layers
from kd.models.encoder import Encoder
from kd.models.states import EncoderShape
from kd.objective.objective import Objective
from kd.objective.selection import Selection
from kd.teacher.teachers import Teachers, check_provides, fit_objective
from kd.terms.layer_map import LayerSources
from kd.training.bad_update import cause_of
from kd.training.distillation_module import DistillationModule
from kd.training.engine import StudentEngine
from kd.training.micro_batches import MicroBatches
from kd.training.phases import Phase, check_layers, phase_at
from kd.training.read_back import read_together
from kd.training.settings import TrainSettings
from kd.training.teaching import Teaching
from kd.training.update_report import UpdateReport, reported

STEPS = "optimizer_steps"  # the trainer's own entry among a checkpoint's facts


class Trainer:
    """A student, its teachers, and the number of updates done."""

    def __init__(
        self,
        student: Encoder,
        teachers: Teachers,
        phases: Sequence[Phase],
        *,
        vocabulary: int,
        train: TrainSettings,
        precision: str,
        progress: RankProgress | None = None,
        sources: LayerSources | None = None,
        select: type[Selection] = Selection,
        bands: Tensor | None = None,
    ) -> None:
        """sources: the layers of the layer maps `copied` and `cka`. select: finds the positions of a batch that the terms read.

        bands: see kd.training.teaching.
        """
        self.select = select
        self.device = process_group.device()
        self.gpu_products = choose_gpu_products(precision, train.tf32, self.device)
        self.bands = None if bands is None else moved(bands, self.device)
        self.teachers = teachers
        self.phases = phases
        self.objectives = [self._objective(phase, student.shape, train.chunk_tokens, sources) for phase in phases]
        check_layers(phases, student)
        self.vocabulary = vocabulary
        self.settings = train
        self.precision = precision
        self.progress = progress or RankProgress()
        self.micro_batches = MicroBatches(teachers, vocabulary, self.device, train.teacher_stream, self.progress)
        self.done = 0
        """Finished updates, skipped ones included."""
        self.skipped = 0
        self.tokens = 0
        self.steps = 0
        """AdamW's step count: updates that changed the weights since its state was last fresh."""
        self.may_train = frozenset(name for name, weight in student.named_parameters() if weight.requires_grad)
        self.compiled_teachers = teachers.compile_layers(self.objectives, varying=not vocabulary) if train.compile else []
        self.compiled: list[str] = []
        """The layers that train.compile compiles, in words: of the student, and of each teacher."""
        self._begin(phases[0], student, {})

    def update(self, batches: Sequence[Batch], look: bool = False) -> UpdateReport:
        """Learn from this rank's micro-batches of the next update. look: also report kd.training.teaching. Collective.

        The host reads the device once, after the step. For DeepSpeed's own reads see StudentEngine.finish_update.
        """
        self.progress.enter("counting")
        phase = phase_at(self.phases, self.done)
        if phase is not self.phase:
            self._cross(phase)
        within = (self.done - phase.first, phase.updates)
        objective = self.module.objective = self.objective.at(*within)
        teaching = self.module.teaching = Teaching(self.bands, self.device) if look else None
        rate = phase.learning_rate(self.done)
        self.engine.set_learning_rate(rate)
        selections = [self.select(batch, objective.on_logits, self.device) for batch in batches]
        totals = self._counted(selections, objective)
        divisors = totals[: len(objective.terms)]
        sums = torch.zeros_like(divisors, device=self.device)
        for selection, teacher_outputs in self.micro_batches.taught(self.done, selections, objective):
            self._seed_dropout(selection.host)
            sums += self.engine.micro_step(selection, teacher_outputs, divisors)
            del teacher_outputs  # freed before the next ones are made
        set_key(None)
        norms = self.engine.finish_update()
        results = [totals, process_group.sum_over_ranks(sums), norms]
        if teaching is not None:
            results.append(process_group.sum_over_ranks(teaching.sums))
        whole, summed, (norm,), *looked = read_together(results)
        counts, (tokens, predicted) = whole[: len(sums)], (int(n) for n in whole[len(sums) :])
        means = [total / max(1.0, count) for total, count in zip(summed, counts, strict=True)]
        applied = math.isfinite(norm)
        self.done += 1
        self.tokens += tokens
        self.skipped += not applied
        self.steps += applied
        loss = sum(weight * mean for weight, mean in zip(objective.weights, means, strict=True))
        terms = reported(objective.names, means, counts)
        scheduled = self.objective.scheduled(*within)
        cause = "" if applied else cause_of(self.teachers, self.done - 1, selections, objective, self.vocabulary, terms)
        more = {"clipped_share": float(norm > self.settings.clip)} if self.settings.clip else {}
        if teaching is not None:
            more |= teaching.means(looked[0])
        return UpdateReport(self.done, loss, terms, norm, rate, applied, tokens, predicted, phase.name, scheduled, cause, more)

    def _counted(self, selections: Sequence[Selection], objective: Objective) -> Tensor:
        """[K + 2] float64: each term's count in the whole update, then its tokens and its predicted tokens. Collective.

        The counts of this rank are known on the host. They go to the device for other ranks alone.
        """
        totals = torch.stack([torch.cat([objective.counts(selection), selection.seen]) for selection in selections]).sum(0)
        return process_group.sum_over_ranks(moved(totals, self.device)) if process_group.world_size() > 1 else totals

    def try_update(self, batches: Sequence[Batch]) -> None:
        """Learn from micro-batches and undo it: weights, moments and counts are as before, bit by bit. Collective.

        Shows whether the memory is enough. The full state in fp32 passes through host memory.
        """
        weights: dict[str, Tensor] = {}
        moments: dict[str, dict[str, Tensor]] = {}
        for name, weight, kept in self.engine.full_state():
            weights[name] = weight.detach().to("cpu", copy=True)
            moments[name] = {key: value.detach().to("cpu", copy=True) for key, value in kept.items()}
        before = self.done, self.skipped, self.tokens, self.steps
        self.update(batches)
        self.done, self.skipped, self.tokens, self.steps = before
        self.engine.set_weights(weights)
        self.engine.load_full_state(weights, moments, self.steps)

    def snapshot(self, dtype: torch.dtype = torch.float32) -> Encoder:
        """A whole copy of the current student, for evaluation and export. Collective; every rank gets one."""
        copy = self.student.blank(dtype)
        own = dict(copy.named_parameters())
        with torch.no_grad():
            for name, weight, _ in self.engine.full_state():
                if name.startswith(STUDENT):
                    own[name.removeprefix(STUDENT)].copy_(weight)
        if copy.attention == DOCUMENTS:
            copy.use_attention("sdpa")  # as a model from a folder has: both give the same scores, to the bit
        return copy.to(self.device).eval()

    def save(self, folder: Path, facts: dict[str, Any], write: Callable[[Path, Progress, State], Any] = checkpoint.write) -> str | None:
        """Write a checkpoint; None, or the reason why it could not be written. Collective: all ranks get the same answer.

        write: what rank 0 does with the state; it may return before the bytes are written.
        """
        progress = Progress(self.done, self.skipped, self.tokens, facts | {STEPS: self.steps})
        state = self._gathered()
        failed = ""
        if process_group.rank() == 0:
            try:
                write(folder, progress, state)
            except OSError as error:
                failed = str(error) or repr(error)
        for _ in state:  # the other ranks take part in gathering
            pass
        self.progress.enter("agreeing")
        return process_group.from_rank_zero(failed) or None

    def _gathered(self) -> Iterator[tuple[str, Tensor, dict[str, Tensor]]]:
        """The full state. After the last parameter, no collective waits for rank 0; it writes to disk."""
        yield from self.engine.full_state()
        self.progress.enter(WRITING)

    def load(self, saved: Checkpoint, state: FullState | None = None) -> None:
        """Continue from a checkpoint. Collective. The student must have had its weights before this trainer was made.

        state: that of the checkpoint, if it was read before.
        """
        weights, moments = state or load_state(saved)
        self.done, self.skipped, self.tokens = saved.progress.done, saved.progress.skipped, saved.progress.tokens
        self.steps = saved.progress.facts.get(STEPS, self.done - self.skipped)
        phase = phase_at(self.phases, self.done)
        if phase is self.phase:
            self.engine.set_weights({name: weight for name, weight in weights.items() if not name.startswith(STUDENT)})
        else:
            self._rebuild(phase, weights)
        self._take(weights, moments, crossing=phase_at(self.phases, max(0, self.done - 1)) is not phase)

    def _objective(self, phase: Phase, student: EncoderShape, chunk_tokens: int | None, sources: LayerSources | None) -> Objective:
        """A phase's objective for this student and these teachers. Raises KdError if they do not fit."""
        whole = Objective(phase.terms, chunk_tokens, phase.place)
        objective = fit_objective(whole, student, self.teachers.shapes, self.teachers.mixing, sources)
        if objective.needs and not self.teachers.members:
            raise KdError(f"objective: expected a teacher that offers {', '.join(sorted(objective.needs))}, got none; name one")
        for number, teacher in enumerate(self.teachers.members):
            check_provides(objective, number, teacher.provides, teacher.positions)
        return objective

    def _begin(self, phase: Phase, student: Encoder, before: Mapping[str, Tensor]) -> None:
        """An engine for a phase, around a student in fp32 on the CPU. before: weights of earlier phases, for projections that go on."""
        if self.settings.activation_checkpointing:
            student.checkpoint_activations(use_reentrant=self.settings.zero_stage == 3)
        self.phase = phase
        self.objective = self.objectives[self.phases.index(phase)]
        if self.settings.compile:
            own = compile_layers(student, self.objective.student_states, varying=not self.vocabulary)
            self.compiled = [f"student {own}", *self.compiled_teachers]
        self.student = student.train()
        self.module = DistillationModule(student, self.objective, self.vocabulary, self.settings.seed, self.progress)
        with torch.no_grad():
            for name, parameter in self.module.named_parameters():
                own = name.removeprefix(STUDENT)
                parameter.requires_grad_((own in self.may_train or own == name) and phase.trainable(student, own))
                if own == name and name in before and before[name].shape == parameter.shape:
                    parameter.copy_(before[name])
        if not any(parameter.requires_grad for parameter in self.module.parameters()):
            raise KdError(f"phases: expected something that trains in phase {phase.name}, got {', '.join(phase.trains)}; name another part")
        self.engine = StudentEngine(self.module, self.settings, phase.optimizer, self.precision, self.progress)

    def _cross(self, phase: Phase) -> None:
        """Begin the next phase as from a checkpoint: the full state in fp32 passes through host memory. Collective."""
        weights: dict[str, Tensor] = {}
        moments: dict[str, dict[str, Tensor]] = {}
        for name, weight, kept in self.engine.full_state():
            weights[name] = weight.detach().to("cpu", copy=True)
            moments[name] = {key: value.detach().to("cpu", copy=True) for key, value in kept.items()}
        self._rebuild(phase, weights)
        self._take(weights, moments, crossing=True)

    def _rebuild(self, phase: Phase, weights: dict[str, Tensor]) -> None:
        """Another phase's engine, around a new student of these weights."""
        student = self.student.blank(torch.float32)
        with torch.no_grad():
            for name, parameter in student.named_parameters():
                parameter.copy_(weights[f"{STUDENT}{name}"])
        self.engine.close()
        del self.engine, self.module, self.student
        gc.collect()  # an engine and its module hold each other: free them before the next ones are made
        self._begin(phase, student, weights)

    def _take(self, weights: dict[str, Tensor], moments: dict[str, dict[str, Tensor]], crossing: bool) -> None:
        """Give the engine full state; crossing: the state is that of the phase before."""
        if crossing and self.phase.fresh:
            moments, self.steps = {}, 0
        self.engine.load_full_state(weights, moments, self.steps)

    def roll_back(self, saved: Checkpoint) -> None:
        """Load a checkpoint's weights, moments and step count again. The updates since then count as skipped. Collective."""
        done, tokens = self.done, self.tokens
        state = load_state(saved)
        self.engine.set_weights(state.weights)
        self.load(saved, state)
        self.done, self.tokens = done, tokens
        self.skipped = saved.progress.skipped + done - saved.progress.done

    def _seed_dropout(self, batch: Batch) -> None:
        """Dropout is a function of (seed, update, slot) on CPUs, or else of the first slot: a checkpoint needs no random state."""
        key = (self.settings.seed * 0x9E3779B97F4A7C15 + batch.update * 0xBF58476D1CE4E5B9 + batch.first_slot * 0x94D049BB133111EB) % 2**63
        torch.manual_seed(key)
        world, rows = process_group.world_size(), range(len(batch.input_ids))
        set_key(Key(self.settings.seed, batch.update, tuple(batch.first_slot + world * row for row in rows)))
