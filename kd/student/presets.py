"""A student's size: layers, width, heads and inner width; the presets, and what a teacher can be narrowed to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from kd.errors import KdError

if TYPE_CHECKING:
    from kd.models.encoder import Encoder


@dataclass(frozen=True)
class Dimensions:
    """width: of the residual stream; heads divide it; inner: of the feed-forward layers."""

    width: int
    heads: int
    inner: int


PRESETS: dict[str, tuple[int, Dimensions]] = {
    "6x768": (6, Dimensions(768, 12, 3072)),  # DistilBERT
    "4x312": (4, Dimensions(312, 12, 1200)),  # TinyBERT
    "6x384": (6, Dimensions(384, 12, 1536)),  # MiniLM
    "3x384": (3, Dimensions(384, 12, 1536)),
}
"""Name -> (layers, shape)."""
if TYPE_CHECKING:
    Preset = str
else:
    Preset = Literal[tuple(PRESETS)]


def dimensions_of(encoder: Encoder) -> Dimensions:
    """An encoder's own shape."""
    return Dimensions(encoder.width, encoder.heads, int(getattr(encoder.hf.config, encoder.family.config.inner)))


def narrowed(teacher: Encoder, width: int | None, heads: int | None, inner: int | None) -> Dimensions:
    """The shape that is asked of a teacher's student; what is None is the teacher's own, inner in proportion to the width.

    Raises KdError for sizes larger than the teacher's, for heads that do not divide, and for a head size above the teacher's. With rotary
    positions a smaller head size is refused too, because their angles depend on it.
    """
    own = dimensions_of(teacher)
    shape = Dimensions(width or own.width, heads or own.heads, inner or round(own.inner * (width or own.width) / own.width))
    for name, wanted, most in (("width", shape.width, own.width), ("heads", shape.heads, own.heads), ("inner", shape.inner, own.inner)):
        if wanted > most:
            raise KdError(f"student.{name}: expected at most {most}, the teacher's, got {wanted}; lower it, or take a larger teacher")
    if shape.width % shape.heads:
        raise KdError(f"student.heads: expected heads that divide student.width = {shape.width}, got {shape.heads}; change either")
    size, most = shape.width // shape.heads, own.width // own.heads
    if size > most:
        fewest = next(
            number for number in range(shape.heads, shape.width + 1) if shape.width % number == 0 and shape.width // number <= most
        )
        advice = f"use {fewest} heads" if fewest <= own.heads else "lower the width"
        raise KdError(f"student.heads: expected heads of at most {most} dimensions, the teacher's, got {size}; {advice}")
    if size != most and teacher.family.layer.fused_qkv is not None:
        raise KdError(
            f"student.heads: expected heads of {most} dimensions, as {teacher.family.name} turns them by angles of its head size, "
            f"got {size}; use a width of {most} x heads"
        )
    return shape
