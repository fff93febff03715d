"""Settings of the student: its source, the teacher's layers that it copies, its size, and the parts that train."""

import random
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from kd.errors import KdError
from kd.student.presets import PRESETS, Preset

DISTILBERT_LAYERS = (0, 2, 4, 7, 9, 11)  # Sanh et al. 2019, their extract script, for a teacher of 12
Policy = Literal["every_other", "distilbert", "first", "last", "spread", "random"]
Method = Literal["magnitude", "activation", "projection", "random"]
Positive = Annotated[int, Field(gt=0)]


class StudentSettings(BaseModel):
    """The source of a student and the parts of it that train."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    init: str = "teacher"
    """"teacher": from the teacher's layers, as the next fields say; else a model folder or hub name, taken as it is."""
    layers: Policy | list[int] = "every_other"
    """The teacher layers that become the student's, first to last: a policy or an ascending list (0 is the first)."""
    count: Positive | None = None
    """Their number, for a policy; default half of the teacher's, rounded down."""
    shape: Preset | None = None
    """A preset of count, width, heads and inner (kd/student/presets.py)."""
    width: Positive | None = None
    heads: Positive | None = None
    inner: Positive | None = None
    """Width of the stream, attention heads, neurons of a feed-forward layer; None: the teacher's (inner in proportion to the width)."""
    shrink: Method | None = None
    """Method that makes the teacher's layers smaller (kd/student/narrow.py). None: layers are copied unchanged. Narrower students then use
    projection, or activation for a family that cannot be projected."""
    sample_tokens: Positive = 8192
    """Positions of the corpus that activation and projection look at."""
    copy_layers: bool = True
    """Give the student's layers the weights of those; false: fresh ones, of which `layers` is then only the number."""
    copy_embeddings: bool = True
    """Also copy everything around them but the head's transform: embeddings, their LayerNorm, decoder and bias."""
    architecture: Literal["same", "distilbert"] = "distilbert"
    """The teacher's own architecture, or DistilBERT's (no token types)."""
    copy_head: bool = True
    """Also copy the MLM head's transform and LayerNorm; the decoder with its bias goes with the embeddings."""
    fold_token_type: bool = True
    """Add the teacher's token-type row 0 to the position table where the student has no token types."""
    freeze_positions: bool = False
    trainable: Literal["all", "head"] = "all"
    """head: the MLM head's transform, LayerNorm and bias alone (embeddings tied to it stay frozen)."""
    new_head: bool = False
    """The folder of `init` has no MLM head: make one."""
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    """For hidden states and attention alike; None keeps the model's own."""

    @property
    def _smaller(self) -> bool:
        """True if a setting asks for layers that are smaller than the teacher's."""
        return any(value is not None for value in (self.shape, self.width, self.heads, self.inner, self.shrink))

    @property
    def needs_sample(self) -> bool:
        """True if making this student may read text of the corpus."""
        return self.init == "teacher" and self._smaller and self.shrink not in ("magnitude", "random")

    @field_validator("layers", mode="before")
    @classmethod
    def _no_number(cls, value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool):
            raise ValueError(f"expected a policy or a list of layers, got {value}; for {value} layers set student.count={value}")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> "StudentSettings":
        if self.new_head and self.init == "teacher":
            raise ValueError("new_head: expected init to be a model folder without a head, got init: teacher; set init")
        if isinstance(self.layers, list):
            if not self.layers:
                raise ValueError("layers: expected at least one layer, got []; name some, or a policy")
            if any(low >= high for low, high in zip(self.layers, self.layers[1:], strict=False)) or self.layers[0] < 0:
                raise ValueError(f"layers: expected an ascending list of different layers from 0, got {self.layers}; sort it")
            if self.count not in (None, len(self.layers)):
                raise ValueError(f"count: expected {len(self.layers)}, the list's length, got {self.count}; leave it out")
        if self.layers == "distilbert" and self.count not in (None, len(DISTILBERT_LAYERS)):
            raise ValueError(f"count: expected {len(DISTILBERT_LAYERS)} with layers: distilbert, got {self.count}")
        return self

    @model_validator(mode="after")
    def _shaped(self) -> "StudentSettings":
        for name in ("shape", "width", "heads", "inner", "shrink"):
            if self.init != "teacher" and getattr(self, name) is not None:
                raise ValueError(f"{name}: expected init: teacher, which alone is made smaller, got init: {self.init}; leave {name} out")
        for name in ("copy_layers", "copy_embeddings"):
            if not getattr(self, name) and (self._smaller or self.init != "teacher"):
                raise ValueError(f"{name}: expected true unless layers are copied as they are, got false; leave it out")
        if self.shape is not None:
            layers, shape = PRESETS[self.shape]
            for name, value in (("width", shape.width), ("heads", shape.heads), ("inner", shape.inner)):
                if getattr(self, name) not in (None, value):
                    raise ValueError(f"{name}: expected {value} with shape: {self.shape}, got {getattr(self, name)}; leave either out")
            given = (
                len(self.layers) if isinstance(self.layers, list) else len(DISTILBERT_LAYERS) if self.layers == "distilbert" else self.count
            )
            if given not in (None, layers):
                raise ValueError(f"count: expected {layers} layers with shape: {self.shape}, got {given}; leave either out")
        if self.shrink == "random" and not self.copy_head:
            raise ValueError("copy_head: expected true with shrink: random, which makes all weights anew, got false; leave it out")
        return self


def chosen_layers(settings: StudentSettings, teacher_layers: int, seed: int = 0) -> tuple[int, ...]:
    """The teacher's layers that become the student's, ascending.

    every_other: floor(i x L / count), so 0, 2, 4 … for half of them.
    first, last: the first or last `count` layers.
    spread: first and last included, evenly between.
    distilbert: (0, 2, 4, 7, 9, 11), for 12 layers only.
    random: drawn by seed.
    Raises KdError if the teacher does not have these layers.
    """
    if isinstance(settings.layers, list):
        if settings.layers[-1] >= teacher_layers:
            raise KdError(
                f"student.layers: expected layers from 0 to {teacher_layers - 1}, the teacher's last, "
                f"got {settings.layers[-1]}; correct the list"
            )
        return tuple(settings.layers)
    if settings.layers == "distilbert":
        if teacher_layers != 12:
            raise KdError(
                f"student.layers: expected a teacher of 12 layers for policy distilbert, got {teacher_layers}; "
                "use spread, which is the same for 12 and works for any number"
            )
        return DISTILBERT_LAYERS
    preset = PRESETS[settings.shape][0] if settings.shape is not None else None
    count = settings.count or preset or max(1, teacher_layers // 2)
    if count > teacher_layers:
        raise KdError(f"student.count: expected at most {teacher_layers}, the teacher's layers, got {count}; lower it")
    if settings.layers == "random":
        return tuple(sorted(random.Random(seed).sample(range(teacher_layers), count)))
    if settings.layers == "first":
        return tuple(range(count))
    if settings.layers == "last":
        return tuple(range(teacher_layers - count, teacher_layers))
    if settings.layers == "every_other":
        return tuple(i * teacher_layers // count for i in range(count))
    if count < 2:
        raise KdError("student.count: expected at least 2 for policy spread (first and last), got 1; use first or last")
    # i x (L - 1) / (count - 1), rounded half up, in integers
    return tuple((2 * i * (teacher_layers - 1) + count - 1) // (2 * (count - 1)) for i in range(count))
