"""A narrower encoder out of a wider one: which dimensions, heads and neurons stay, and every weight cut accordingly.

1. kd/student/presets.py says what is asked and whether the teacher can give it; kd/student/axes.py what each axis of each weight is.
2. kd/student/importance.py scores; the strongest stay. Heads first, then the dimensions inside them (query and key together, value and
output
   together). Queries are scaled, so that attention scores keep their size with smaller heads.
3. kd/student/fit.py lets what stays make up for what went, on a sample of text: least squares, layer after layer.

With nothing to cut every weight is the wide one's, bit for bit.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedConfig

from kd.batch import Batch
from kd.errors import KdError
from kd.models.encoder import Encoder
from kd.models.loading import untrained
from kd.student.axes import axes
from kd.student.fit import Kept, can_fit, fit
from kd.student.importance import Scores, by_activation, by_magnitude, head_dimensions, strongest
from kd.student.presets import Dimensions, dimensions_of
from kd.student.settings import Method


@dataclass(frozen=True)
class Cut:
    """Places that stay: stream [W]; heads [H'], where all layers share a table of them; per layer query_key, value [A'], inner [I']."""

    stream: Tensor
    heads: Tensor
    query_key: tuple[Tensor, ...]
    value: tuple[Tensor, ...]
    inner: tuple[Tensor, ...]


def narrow(
    teacher: Encoder,
    chosen: Sequence[int],
    wide: Encoder,
    shape: Dimensions,
    method: Method,
    sample: Sequence[Batch],
    seed: int,
    with_head: bool = True,
) -> Encoder:
    """An encoder of this shape, fp32, as near to the teacher as the method makes it. teacher and wide are not changed.

    wide: the teacher's chosen layers at full width.
    with_head: the head's transform is fitted too.
    Methods:
      magnitude: the dimensions with the largest weights.
      activation: the dimensions with the largest activations on the sample, fitted to it.
      projection: principal directions of the stream on the sample instead of dimensions, fitted.
      random: fresh weights, the control.
    Fitting also makes up for layers that are not among the chosen.
    Raises KdError when a sample is needed and there is none, or when the family cannot be projected.
    """
    if method == "projection" and not can_fit(wide):
        raise KdError(
            f"student.shrink: expected a family whose norms all follow a residual sum for projection, got {wide.family.name}; "
            "use activation or magnitude"
        )
    axes(wide)  # raises for weights that nothing knows
    config = narrow_config(wide, shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        student = untrained(config, wide.hf.config._attn_implementation)
    if method == "random" or wide.decoder_weight.is_meta:
        return student
    nothing_goes = shape == dimensions_of(wide) and len(chosen) == teacher.layers
    if method != "magnitude" and not nothing_goes and not sample:
        raise KdError(f"student.shrink: expected a sample of text for {method}, got none; use magnitude")
    on_text = method != "magnitude" and not nothing_goes
    cut = choose(wide, shape, by_activation(wide, sample) if on_text else by_magnitude(wide))
    with torch.no_grad():
        copy_cut(wide, student, cut)
        if on_text and can_fit(wide):
            stream = cut.stream if method == "activation" else None
            fit(teacher, chosen, wide, student, Kept(stream, cut.query_key, cut.value, cut.inner), sample, with_head)
    return student


def narrow_config(wide: Encoder, shape: Dimensions) -> PreTrainedConfig:
    """The wide one's configuration in this shape."""
    config, names = copy.deepcopy(wide.hf.config), wide.family.config
    config.dtype = torch.float32
    for name, value in ((names.width, shape.width), (names.heads, shape.heads), (names.inner, shape.inner)):
        setattr(config, name, value)
    if hasattr(config, "pooler_hidden_size"):
        config.pooler_hidden_size = shape.width
    return config


def choose(wide: Encoder, shape: Dimensions, scores: Scores) -> Cut:
    """The strongest of everything."""
    of_heads, size = wide.heads, shape.width // shape.heads
    shared = strongest(torch.stack([layer.heads(of_heads) for layer in scores.layers]).sum(0), shape.heads)
    one_for_all = any("H" in letters for letters, _ in axes(wide).values())
    heads = [shared if one_for_all else strongest(layer.heads(of_heads), shape.heads) for layer in scores.layers]
    layers = list(zip(scores.layers, heads, strict=True))
    return Cut(
        stream=strongest(scores.stream, shape.width),
        heads=shared,
        query_key=tuple(head_dimensions(layer.query_key, kept, of_heads, size) for layer, kept in layers),
        value=tuple(head_dimensions(layer.value, kept, of_heads, size) for layer, kept in layers),
        inner=tuple(strongest(layer.inner, shape.inner) for layer, _ in layers),
    )


def copy_cut(wide: Encoder, student: Encoder, cut: Cut) -> None:
    """Every weight of the student: the wide one's at the places that stay."""
    known, source = axes(wide), dict(wide.hf.named_parameters())
    smaller = (student.width // student.heads) / (wide.width // wide.heads)
    for name, weight in student.hf.named_parameters():
        letters, layer = known[name]
        values = source[name]
        for axis, letter in enumerate(letters):
            places = _places(letter, layer, cut, wide)
            values = values if places is None else values.index_select(axis, places)
        weight.copy_(values * smaller**0.5 if letters[0] == "Q" and smaller != 1 else values)


def _places(letter: str, layer: int | None, cut: Cut, wide: Encoder) -> Tensor | None:
    """The kept indices of an axis; None: all."""
    if letter in "VPTR" or (letter == "E"):
        return None
    if letter == "D":
        return cut.stream
    if letter == "H":
        return cut.heads
    assert layer is not None, letter
    if letter in "QK":
        return cut.query_key[layer]
    if letter == "O":
        return cut.value[layer]
    inner = cut.inner[layer]
    if letter == "I":
        return inner
    if letter == "J":
        return torch.cat([inner, inner + dimensions_of(wide).inner])
    assert letter == "F", letter
    return torch.cat([cut.query_key[layer], cut.query_key[layer] + wide.width, cut.value[layer] + 2 * wide.width])
