"""Values that a configuration leaves to the machine or the corpus: precision, attention, the number of updates."""

import math
from typing import TYPE_CHECKING, Any

from launcher.config.run_config import AnyRunConfig
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    from kd.distributed import process_group
else:
    process_group = lazy_module("kd.distributed.process_group")


def precision_of(config: AnyRunConfig) -> str:
    """fp32 or bf16: what `auto` means on this machine."""
    if config.train.precision != "auto":
        return config.train.precision
    return "bf16" if process_group.native_bf16() else "fp32"


def attention_of(config: AnyRunConfig, precision: str) -> str:
    """sdpa or eager: what `auto` means on this machine (figures: ARCHITECTURE.md, Decisions)."""
    if config.train.attention != "auto":
        return config.train.attention
    slow_fused_backward = process_group.device().type == "cpu" and precision == "bf16" and config.row_tokens <= 256
    return "eager" if slow_fused_backward else "sdpa"


def updates_of(config: AnyRunConfig, stream: Any) -> int:
    """The number of updates of a run, from updates, tokens or epochs; a length in epochs needs the stream."""
    train = config.train
    if train.updates is not None:
        return train.updates
    if train.tokens is not None:
        windows = train.tokens / config.row_tokens
    else:
        assert train.epochs is not None
        assert stream is not None
        windows = train.epochs * stream.windows_per_epoch
    return max(1, math.ceil(windows / train.global_batch))
