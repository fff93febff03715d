"""Settings of the training itself: batch arithmetic, precision, ZeRO, and checkpoints."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from stillhouse.settings import FREE

Positive = Annotated[int, Field(gt=0)]


class TrainSettings(BaseModel):
    """One run's length and batch arithmetic. Exactly one of updates, tokens and epochs is given."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    global_batch: Positive
    """Windows per update, over all ranks: the only number the result depends on."""
    micro_batch: Annotated[Positive, FREE]
    """Windows per rank and forward pass: memory, never the result."""
    updates: Positive | None = None
    tokens: Positive | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 1
    zero_stage: Annotated[Literal[0, 1, 2, 3], FREE] = 1
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the processor or GPU gains by it, fp32 elsewhere (kd/distributed/precision.py). A resumed run keeps its own."""
    tf32: Annotated[bool, FREE] = True
    """On a GPU with precision fp32: matrix products round their inputs to TF32."""
    attention: Annotated[Literal["auto", "sdpa", "eager", "documents"], FREE] = "auto"
    """The student's attention. auto: the fastest in measurements (kd/models/attention/attention_choice.py). A resumed run keeps its own.

    documents: kd.models.attention.document_attention, which computes nothing between two documents of a window.
    """
    clip: Annotated[float, Field(ge=0)] = 5.0
    """Largest global gradient norm of an update; 0 switches clipping off."""
    activation_checkpointing: Annotated[bool, FREE] = False
    chunk_tokens: Annotated[Positive | None, FREE] = None
    """Tokens whose logits exist at the same time, [chunk_tokens, V] in the weights' dtype. null: from the caches (kd.objective.chunks)."""
    teacher_stream: Annotated[bool, FREE] = False
    """On a GPU, the teachers compute the next micro-batch while the student learns from this one. Twice the memory of their outputs."""
    compile: Annotated[bool, FREE] = False
    """Layers of the student and of whole teachers run through torch.compile (kd.models.compiled_layers)."""
    loader_workers: Annotated[int, Field(ge=0), FREE] = 1
    prefetch_updates: Annotated[Positive, FREE] = 2
    max_bad_updates: Annotated[Positive, FREE] = 10
    """Non-finite updates in a row that are skipped before the run goes back or stops."""
    spike_factor: Annotated[Annotated[float, Field(gt=1)] | None, FREE] = None
    """A loss above this factor times the median of the last 64 is a spike. It is counted, and can cause a roll-back. null: no spikes."""
    roll_backs: Annotated[int, Field(ge=0), FREE] = 0
    """Number of times that the run may go back to its last good checkpoint. The weights lose the updates since then."""
    timeout_seconds: Annotated[float, Field(gt=0, le=1e6), FREE] = 600.0
    check_memory: Annotated[bool, FREE] = True
    """Refuse a start whose planned memory is not there."""
    try_largest_batch: Annotated[bool, FREE] = False
    """Before the first update, learn from the largest batch once and undo it, so that too little memory is known at once."""

    @model_validator(mode="after")
    def _arithmetic(self) -> "TrainSettings":
        given = [name for name in ("updates", "tokens", "epochs") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of updates, tokens and epochs, got {', '.join(given) or 'none'}; keep one")
        if self.global_batch % self.micro_batch:
            sizes = f"{self.global_batch} and {self.micro_batch}"
            raise ValueError(f"expected global_batch to be a multiple of micro_batch, got {sizes}; change either")
        return self

    @model_validator(mode="after")
    def _compiled(self) -> "TrainSettings":
        if self.compile and self.zero_stage == 3:
            raise ValueError("expected zero_stage below 3 where compile is true, got 3; change either")
        return self

    def micro_batches(self, world_size: int) -> int:
        """Forward passes per rank and update.

        Raises ValueError when global_batch is not micro_batch x ranks x a whole number.
        """
        count, rest = divmod(self.global_batch, self.micro_batch * world_size)
        if rest:
            raise ValueError(
                f"train.global_batch: expected a multiple of micro_batch x ranks = {self.micro_batch} x {world_size}, "
                f"got {self.global_batch}; change either"
            )
        return count


class CheckpointSettings(BaseModel):
    """When to save, and what to keep."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    every_updates: Positive | None = 500
    every_minutes: Annotated[float, Field(gt=0)] | None = 15.0
    keep_last: Positive = 2
    keep_best: Annotated[int, Field(ge=0)] = 1
    """Number of checkpoints with the lowest held-out loss that are also kept."""
    asynchronous: bool = False
    """Train on while the bytes are written. Costs 12 bytes a parameter of host memory meanwhile, on rank 0."""
