"""Bytes that one rank holds for the student and its teachers. Activations, which depend on the kernels, come on top."""

from dataclasses import dataclass

from kd.models.encoder import Encoder
from kd.models.sizes import model_sizes
from kd.teacher.modes import MODES
from kd.teacher.settings import TeacherSettings

BYTES = {"fp32": 4, "bf16": 2}


@dataclass(frozen=True)
class StudentMemory:
    """Bytes that one rank holds for the student, by kind."""

    weights: int
    gradients: int
    masters: int
    """fp32 copies of the weights that AdamW moves; 0 where the weights are their own."""
    moments: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.masters + self.moments


@dataclass(frozen=True)
class TeacherPlan:
    """A frozen teacher: its size, and what one rank holds of it."""

    parameters: int
    bytes: int
    mode: str
    bytes_per_rank: int


def student_memory(parameters: int, trainable: int, stage: int, precision: str, world: int) -> StudentMemory:
    """The bytes of a student on one rank under ZeRO: optimizer state shared from stage 1, gradients from 2, weights from 3.

    Stage 0 in fp32 is plain AdamW, whose weights are their own masters; everywhere else DeepSpeed keeps fp32 copies.
    """
    masters = 0 if stage == 0 and precision == "fp32" else 4 * trainable
    return StudentMemory(
        weights=_share(BYTES[precision] * parameters, world if stage >= 3 else 1),
        gradients=_share(4 * trainable, world if stage >= 2 else 1),
        masters=_share(masters, world if stage >= 1 else 1),
        moments=_share(8 * trainable, world if stage >= 1 else 1),
    )


def teacher_plan(settings: TeacherSettings, teacher: Encoder, precision: str, world: int) -> TeacherPlan:
    each = BYTES[settings.precision or precision]
    parameters = model_sizes(teacher).parameters
    held = MODES[settings.mode].elements_per_rank(teacher, world)
    return TeacherPlan(parameters, each * parameters, settings.mode, each * held)


def _share(count: int, parts: int) -> int:
    return -(-count // parts)
