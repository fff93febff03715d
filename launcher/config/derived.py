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
    from kd.kernels import fp32_products
    from kd.models.attention import attention_choice
    from kd.models.encoder import Encoder
else:
    precisions = lazy_module("kd.distributed.precision")
    process_group = lazy_module("kd.distributed.process_group")
    fp32_products = lazy_module("kd.kernels.fp32_products")
    attention_choice = lazy_module("kd.models.attention.attention_choice")


def chosen_precision(config: AnyRunConfig, saved: Mapping[str, Any] | None = None) -> "precisions.Choice":
    """fp32 or bf16, with the reason: what `auto` means on this machine.

    saved: the facts of the checkpoint that is continued. Its precision stays, also on another machine. A checkpoint of an earlier version
    does not name it; there `auto` means what it meant in that version.
    """
    if config.train.precision != "auto":
        return precisions.Choice(config.train.precision, "train.precision says so")
    if saved is None:
        return precisions.on_this_machine()
    if "precision" in saved:
        return precisions.Choice(saved["precision"], "the run began with it")
    before = "bf16" if process_group.native_bf16() else "fp32"
    return precisions.Choice(before, "the rule of the version that the run began with")


def precision_of(config: AnyRunConfig) -> str:
    """fp32 or bf16: what `auto` means on this machine."""
    return chosen_precision(config).precision


def agreed_precision(config: AnyRunConfig, saved: Mapping[str, Any] | None) -> "precisions.Choice":
    """The choice of the whole run: rank 0's. Collective. saved: see `chosen_precision`."""
    if config.train.precision != "auto":
        return chosen_precision(config)
    chosen = chosen_precision(config, saved) if process_group.rank() == 0 else None
    return precisions.Choice(**json.loads(process_group.from_rank_zero(json.dumps(asdict(chosen) if chosen else {}))))


def chosen_attention(
    config: AnyRunConfig, precision: str, student: "Encoder", saved: Mapping[str, Any] | None = None
) -> "attention_choice.AttentionChoice":
    """The student's attention with the reason: what `auto` means on this machine. student: may be on the meta device.

    saved: the facts of the checkpoint that is continued. Its attention stays, so that rounding stays too. In a checkpoint of an earlier
    version, `auto` means what it meant in that version.
    """
    if config.train.attention != "auto":
        return attention_choice.AttentionChoice(config.train.attention, "train.attention says so")
    kind = process_group.device().type
    if saved is None:
        drops, offered = student.drops_attention, student.family.kernels
        return attention_choice.of_student(kind, precision, config.row_tokens, drops, fp32_products.gains(), offered)
    if "attention" in saved:
        return attention_choice.AttentionChoice(saved["attention"]["student"], "the run began with it")
    before = attention_choice.of_version_0(kind, precision, config.row_tokens)
    return attention_choice.AttentionChoice(before, "the rule of the version that the run began with")


def agreed_attention(
    config: AnyRunConfig, precision: str, student: "Encoder", saved: Mapping[str, Any] | None
) -> "attention_choice.AttentionChoice":
    """The student's attention in the whole run: rank 0's. Collective. saved: see `chosen_attention`."""
    chosen = chosen_attention(config, precision, student, saved)
    if config.train.attention != "auto":
        return chosen
    return attention_choice.AttentionChoice(**json.loads(process_group.from_rank_zero(json.dumps(asdict(chosen)))))


def teacher_attention(config: AnyRunConfig, saved: Mapping[str, Any] | None) -> dict[str, str]:
    """The attention of teachers in the whole run, by their precision. Collective. saved: see `chosen_attention`."""
    if saved is None:
        device, window, onednn = process_group.device().type, config.row_tokens, fp32_products.gains()
        chosen = {one: attention_choice.of_teacher(device, one, window, onednn) for one in attention_choice.PRECISIONS}
    elif "attention" in saved:
        chosen = saved["attention"]["teachers"]
    else:
        chosen = dict.fromkeys(attention_choice.PRECISIONS, "sdpa")
    agreed: dict[str, str] = json.loads(process_group.from_rank_zero(json.dumps(chosen)))
    return agreed


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
