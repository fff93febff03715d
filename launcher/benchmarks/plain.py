"""The plain way to train on a run's objective: whole logits, torch's own gradients, AdamW. It is the reference for speed and for losses.

It shares the loss terms and the batches with the trainer, and nothing else: no DeepSpeed, no chunks, no closed forms.
"""

from collections.abc import Sequence

import torch

from kd.batch import Batch
from kd.models.capture import capture
from kd.models.encoder import Encoder
from kd.objective.objective import Objective
from kd.objective.projections import make_projections
from kd.objective.selection import Selection
from kd.objective.teacher_outputs import TeacherOutputs
from kd.terms.schedules import OptimizerSettings


class PlainLoop:
    """A student and its whole teachers on one process. In bf16 the weights have fp32 masters."""

    def __init__(
        self,
        student: Encoder,
        teachers: Sequence[Encoder],
        shares: Sequence[float],
        objective: Objective,
        vocabulary: int,
        optimizer: OptimizerSettings,
        dtype: torch.dtype,
        clip: float,
        seed: int,
    ) -> None:
        """student, teachers: fp32; they become `dtype`. shares: the teachers' weights."""
        self.shares = shares
        self.student, self.teachers = student.to(dtype).train(), [teacher.to(dtype).eval() for teacher in teachers]
        self.objective, self.vocabulary, self.clip = objective, vocabulary, clip
        self.projections = make_projections(objective, seed).to(student.decoder_weight.device)
        self.weights = [p for p in [*student.parameters(), *self.projections.parameters()] if p.requires_grad]
        self.masters = [weight.detach().clone().float() if weight.dtype != torch.float32 else weight for weight in self.weights]
        decayed, others = [w for w in self.masters if w.dim() >= 2], [w for w in self.masters if w.dim() < 2]
        groups = [{"params": decayed, "weight_decay": optimizer.weight_decay}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, betas=optimizer.betas, eps=optimizer.epsilon, fused=True)

    def update(self, batches: Sequence[Batch], learning_rate: float) -> float:
        """Learn from the micro-batches of one update; its loss."""
        selections = [Selection(batch, self.objective.on_logits) for batch in batches]
        divisors = torch.stack([self.objective.counts(selection) for selection in selections]).sum(0)
        total = 0.0
        for selection in selections:
            loss = self._loss(selection, divisors)
            loss.backward()
            total += float(loss.detach())
        for weight, master in zip(self.weights, self.masters, strict=True):
            if master is not weight and weight.grad is not None:
                master.grad, weight.grad = weight.grad.float(), None
        if self.clip:
            torch.nn.utils.clip_grad_norm_(self.masters, self.clip)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        self.optimizer.zero_grad()
        with torch.no_grad():
            for weight, master in zip(self.weights, self.masters, strict=True):
                if master is not weight:
                    weight.copy_(master)
        return total

    def _loss(self, selection: Selection, divisors: torch.Tensor) -> torch.Tensor:
        taught = {}
        with torch.no_grad():
            for number, teacher in enumerate(self.teachers):
                needs = self.objective.needs_of(number)
                if needs:
                    outputs = capture(teacher, selection.batch, self.objective.teacher_states(number))
                    logits = teacher.logits(outputs.last_hidden[selection.logits])[:, : self.vocabulary] if "logits" in needs else None
                    taught[number] = outputs._replace(logits=logits)
        outputs = capture(self.student, selection.batch, self.objective.student_states)
        logits = self.student.logits(outputs.last_hidden[selection.logits])[:, : self.vocabulary]
        teachers = TeacherOutputs(taught, self.shares)
        loss, _ = self.objective(outputs._replace(logits=logits), teachers, selection, divisors, dict(self.projections))
        return loss
