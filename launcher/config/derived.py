"""Values that a configuration leaves to the machine or the corpus: precision, attention, the number of updates."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from launcher.config.run_config import AnyRunConfig
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    from kd.distributed import precision as precisions
    from kd.distributed import process_group
else:
    precisions = lazy_module("kd.distributed.precision")
    process_group = lazy_module("kd.distributed.process_group")


def chosen_precision(config: AnyRunConfig) -> "precisions.Choice":
    """fp32 or bf16, with the reason: what `auto` means on this machine."""
    if config.train.precision != "auto":
        return precisions.Choice(config.train.precision, "train.precision says so")
    return precisions.on_this_machine()


def precision_of(config: AnyRunConfig) -> str:
    """fp32 or bf16: what `auto` means on this machine."""
    return chosen_precision(config).precision


def agreed_precision(config: AnyRunConfig, saved: Mapping[str, Any] | None) -> "precisions.Choice":
    """The choice of the whole run. Collective.

    saved: the facts of the checkpoint that is continued. Its precision stays, also on another machine. A checkpoint of an earlier version
    does not name it; there `auto` means what it meant in that version.
    """
    if config.train.precision != "auto":
        return chosen_precision(config)
    if saved is None:
        chosen = precisions.on_this_machine() if process_group.rank() == 0 else None
    elif "precision" in saved:
        chosen = precisions.Choice(saved["precision"], "the run began with it")
    else:
        before = "bf16" if process_group.native_bf16() else "fp32"
        chosen = precisions.Choice(before, "the rule of the version that the run began with")
    return precisions.Choice(**json.loads(process_group.from_rank_zero(json.dumps(asdict(chosen) if chosen else {}))))


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
