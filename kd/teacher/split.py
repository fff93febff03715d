"""Teachers split over the ranks by DeepSpeed: zero3 and tensor_parallel (see kd.teacher.teacher)."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import deepspeed
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from kd.batch import IGNORED, Batch
from kd.copies import Indices
from kd.distributed import process_group
from kd.models.capture import INSIDE, capture
from kd.models.outputs import EncoderOutputs
from kd.models.states import StateKey
from kd.teacher.teacher import FrozenEncoder, Teacher


class Zero3Teacher(Teacher):
    """Every weight split over the ranks by a DeepSpeed engine of its own, without an optimizer."""

    def __init__(self, module: FrozenEncoder) -> None:
        super().__init__(module)
        dtype = next(module.parameters()).dtype
        config = self._config(dtype, persistent=4 * self.width)
        with process_group.quiet():
            # Before initialize, which would move the whole model to the device first.
            deepspeed.zero.Init(module=module, config_dict_or_path=config, dtype=dtype)
            self.engine, *_ = deepspeed.initialize(model=module, config=config)

    def forward(self, batch: Batch, selected: Indices | Tensor, requested: frozenset[StateKey]) -> EncoderOutputs:
        """See Teacher."""
        with process_group.quiet():  # its hooks warn once that they cannot look into a Batch; without gradients they need not
            return self.engine(batch, selected, requested)

    @contextmanager
    def decoder(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See Teacher."""
        weight, bias = self.module.encoder.decoder_weight, self.module.encoder.decoder_bias
        with deepspeed.zero.GatheredParameters([weight, bias]):
            yield weight, bias

    @staticmethod
    def _config(dtype: torch.dtype, persistent: int) -> dict[str, Any]:
        return {
            "train_micro_batch_size_per_gpu": 1,  # asked for, never used: there is no backward
            "bf16": {"enabled": dtype == torch.bfloat16},
            "zero_optimization": {
                "stage": 3,
                # A weight of at most this many elements stays whole after its first gather. These are biases and norms.
                # So there are half as many gathers. DeepSpeed's default of 100,000 keeps whole matrices of small models.
                "stage3_param_persistence_threshold": persistent,
                # The defaults keep up to 1e9 gathered elements for a reuse that a forward pass alone never makes.
                "stage3_max_live_parameters": 0,
                "stage3_max_reuse_distance": 0,
                "stage3_prefetch_bucket_size": 0,
                "overlap_comm": False,
            },
            "steps_per_print": None,
        }


class TensorParallelTeacher(Teacher):
    """Heads and feed-forward columns of every layer split over the ranks, which all compute every rank's batch together."""

    def __init__(self, module: FrozenEncoder) -> None:
        super().__init__(module)
        encoder = module.encoder
        rows = (encoder.family.layer.attention_output, encoder.family.layer.feed_forward_down)
        with process_group.quiet():
            deepspeed.init_inference(
                encoder.base,
                tensor_parallel={"tp_size": process_group.world_size()},
                dtype=next(encoder.parameters()).dtype,  # DeepSpeed's default is fp16
                replace_with_kernel_inject=False,  # wrong outputs for padded encoders (DeepSpeed #1466, #3960)
                injection_policy={type(encoder.layer_modules[0]): rows},
            )

    def forward(self, batch: Batch, selected: Indices | Tensor, requested: frozenset[StateKey]) -> EncoderOutputs:
        """See Teacher."""
        together, mine = gather_batches(batch)
        outputs = capture(self.module.encoder, together, requested)
        last, captured = outputs.last_hidden[mine], outputs.states
        # sorted: every rank gathers them in the same order
        states = {key: (gather_heads(captured.pop(key)) if key.kind in INSIDE else captured.pop(key))[mine] for key in sorted(requested)}
        if outputs.logits is not None:
            by_position = outputs.logits.shape[:2] == together.input_ids.shape and outputs.logits.dim() == 3
            return EncoderOutputs(last, states, logits=outputs.logits[mine if by_position else mine[0]])
        return EncoderOutputs(last, states, self.module.encoder.transform(last[selected]))

    @contextmanager
    def decoder(self) -> Iterator[tuple[Tensor, Tensor]]:
        """See Teacher."""
        yield self.module.encoder.decoder_weight, self.module.encoder.decoder_bias


def gather_batches(batch: Batch) -> tuple[Batch, tuple[slice, slice]]:
    """All ranks' rows in one batch, in rank order, padded to the largest; and where in it this rank's [B, S] lies. Collective.

    Only what an encoder reads is gathered: labels and windows of the result are empty of meaning.
    """
    ranks, device = dist.get_world_size(), batch.input_ids.device
    rows, columns = batch.input_ids.shape
    shapes = [torch.zeros(2, dtype=torch.int64, device=device) for _ in range(ranks)]
    dist.all_gather(shapes, torch.tensor([rows, columns], device=device))
    most_rows, most_columns = (int(n) for n in torch.stack(shapes).amax(dim=0))
    types = torch.zeros_like(batch.input_ids) if batch.token_types is None else batch.token_types
    mine = torch.stack([batch.input_ids, batch.positions, batch.segments, types])
    mine = F.pad(mine, (0, most_columns - columns, 0, most_rows - rows))
    everyone = [torch.empty_like(mine) for _ in range(ranks)]
    dist.all_gather(everyone, mine)
    input_ids, positions, segments, types = torch.cat(everyone, dim=1)
    start = dist.get_rank() * most_rows
    windows = torch.zeros_like(input_ids[:, 0])
    together = Batch(input_ids, torch.full_like(input_ids, IGNORED), positions, segments, windows, token_types=types)
    return together, (slice(start, start + rows), slice(0, columns))


def gather_heads(states: Tensor) -> Tensor:
    """Each rank's heads [B, S, D / ranks] -> all of them [B, S, D], in rank order, which is the heads'. Collective."""
    parts = [torch.empty_like(states, memory_format=torch.contiguous_format) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, states.contiguous())
    return torch.cat(parts, dim=-1)
