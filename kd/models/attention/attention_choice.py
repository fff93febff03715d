"""The attention that `train.attention: auto` stands for, of a student and of its teachers, with the reason.

The rule comes from docs/measurements.md ("Attention by document"): CPU time of one layer, forward and backward, or forward alone.
"""

from collections.abc import Collection
from dataclasses import dataclass

SHORT = 256
"""Positions. Below, masked attention costs little more than attention by document."""
PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class AttentionChoice:
    """An attention implementation (sdpa, eager or documents) and the reason for it, in words."""

    kernel: str
    reason: str


def of_student(
    device_type: str, precision: str, window: int, drops: bool, onednn: bool, offered: Collection[str] = ("documents", "eager")
) -> AttentionChoice:
    """The attention of a model that trains.

    window: positions of a row. drops: attention has dropout. onednn: oneDNN multiplies fp32 matrices (kd.kernels.fp32_products).
    offered: the implementations that the model's family has.
    """
    if device_type != "cpu":
        return AttentionChoice("sdpa", "the fused kernel of GPUs")
    if "documents" not in offered:
        plain = window <= SHORT if precision == "bf16" else onednn
        return AttentionChoice("eager" if plain else "sdpa", "this family has no attention by document")
    if drops:
        return AttentionChoice("documents", "its dropout is the fastest on CPUs")
    if window > SHORT:
        return AttentionChoice("documents", f"windows above {SHORT} positions on a CPU")
    if precision == "bf16":
        return AttentionChoice("eager", f"bf16 windows up to {SHORT} positions on a CPU")
    if onednn:
        return AttentionChoice("documents", "fp32 products of oneDNN, which slow sdpa down")
    return AttentionChoice("sdpa", f"fp32 windows up to {SHORT} positions on a CPU")


def of_teacher(device_type: str, precision: str, window: int, onednn: bool) -> str:
    """The attention of a model that runs forward alone, without dropout."""
    return of_student(device_type, precision, window, False, onednn).kernel


def of_version_0(device_type: str, precision: str, window: int) -> str:
    """The student's attention in runs whose checkpoint does not name it. Their teachers had sdpa."""
    return "eager" if device_type == "cpu" and precision == "bf16" and window <= SHORT else "sdpa"
