"""A model's configuration, proven usable as an encoder here before a weight is touched."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub.errors import StrictDataclassError
from transformers import AutoConfig, PreTrainedConfig
from transformers.activations import ACT2FN
from transformers.utils import logging as hf_logging

from kd.errors import KdError
from kd.models.families import FAMILIES, Family, family_of
from kd.models.folder import check_model_folder, is_folder
from kd.models.weight_files import check_content
from stillhouse.errors import one_line

MOST_LAYERS = 10_000  # more would fill the memory with modules before a weight is read
ACTIVATIONS = ("hidden_act", "activation", "hidden_activation")  # what families call it


def read_config(path: str) -> PreTrainedConfig:
    """The configuration of a model folder or hub name, proven usable as an encoder here.

    Raises KdError for a missing folder, a folder without a model, and heads that do not divide the width. So it does for a family that is
    not in the table, and for a variant that would be computed wrongly.
    """
    check_model_folder(path)
    folder = is_folder(path)
    if folder:
        check_content(Path(path) / "config.json")
        _check_model_type(path)
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        raise KdError(f"{path}: {_unreadable(path, folder, error)}") from error
    _check_config(path, config)
    return config


def _check_model_type(path: str) -> None:
    """Raise KdError for a config.json without model_type: transformers would guess the family from the folder's name."""
    try:
        content = json.loads((Path(path) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise KdError(f"{path}: expected a readable config.json, got {one_line(error)}; fetch the model again") from error
    if not isinstance(content, dict):
        raise KdError(f"{path}: expected settings by name in config.json, got {type(content).__name__}; fetch the model again")
    if content.get("model_type") is None:
        known = ", ".join(FAMILIES)
        raise KdError(f"{path}: expected model_type in config.json to name a known family ({known}), got none; add it")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bars and no reports of transformers on stderr meanwhile: what matters in them is checked and raised here."""
    verbosity, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")
    hub_level = hub.level
    hf_logging.set_verbosity_error()
    hf_logging.disable_progress_bar()
    hub.setLevel(logging.ERROR)
    try:
        yield
    finally:
        hub.setLevel(hub_level)
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


def _check_config(path: str, config: PreTrainedConfig) -> None:
    """KdError unless the model is of a known family, in a variant that its transformers code computes, with sizes that divide."""
    kind = config.model_type
    if kind not in FAMILIES:
        raise KdError(f"{path}: expected a model of a known family ({', '.join(FAMILIES)}), got {kind!r}; use one of those")
    if getattr(config, "is_decoder", False):
        raise KdError(f"{path}: expected an encoder, got is_decoder: true; set it to false in config.json")
    positions = getattr(config, "position_embedding_type", None) or "absolute"
    if positions != "absolute":
        raise KdError(
            f"{path}: expected absolute positions, got position_embedding_type: {positions}; "
            "this version of transformers would ignore it and compute another model"
        )
    family = family_of(config)
    if family.position_offset is None and config.pad_token_id is None:
        raise KdError(f"{path}: expected a pad_token_id, which positions start from, got null; set it in config.json")
    names = family.config
    width, heads = getattr(config, names.width), getattr(config, names.heads)
    sizes = {"vocab_size": config.vocab_size, names.width: width, names.layers: getattr(config, names.layers)}
    for name, size in sizes.items():
        if size < 1:
            raise KdError(f"{path}: expected {name} to be at least 1, got {size}; correct config.json")
    if sizes[names.layers] > MOST_LAYERS:
        raise KdError(f"{path}: expected {names.layers} of at most {MOST_LAYERS:,}, got {sizes[names.layers]:,}; correct config.json")
    for name in ACTIVATIONS:
        function = getattr(config, name, None)
        if isinstance(function, str) and function not in ACT2FN:
            raise KdError(f"{path}: expected {name} to be a function that transformers knows, got {function}; correct config.json")
    if heads < 1 or width % heads:
        raise KdError(f"{path}: expected {names.heads} to divide {names.width} = {width}, got {heads} heads; correct config.json")
    _check_variant(path, config, family)


def _check_variant(path: str, config: PreTrainedConfig, family: Family) -> None:
    """KdError for variants of the newer families that no released model uses and nothing here is tested with."""
    if family.name == "modernbert" and not config.decoder_bias:
        raise KdError(f"{path}: expected a decoder with a bias, got decoder_bias: false; set it to true (a bias of 0 is the same model)")
    if family.name == "modernbert" and (config.hidden_size // config.num_attention_heads) % 2:
        size = config.hidden_size // config.num_attention_heads
        got = f"{config.hidden_size} / {config.num_attention_heads} = {size}"
        raise KdError(f"{path}: expected heads of an even size, got {got}; its positions turn them in pairs: correct config.json")
    if family.name == "mpnet" and config.relative_attention_num_buckets < 32:
        got = config.relative_attention_num_buckets
        raise KdError(
            f"{path}: expected relative_attention_num_buckets of at least 32, which its code fixes, got {got}; correct config.json"
        )
    if family.name == "albert" and (config.num_hidden_groups, config.inner_group_num) != (1, 1):
        got = f"num_hidden_groups: {config.num_hidden_groups} and inner_group_num: {config.inner_group_num}"
        raise KdError(f"{path}: expected one layer that all passes share, got {got}; use a model that has it")
    if family.name == "deberta-v2" and getattr(config, "embedding_size", config.hidden_size) != config.hidden_size:
        raise KdError(f"{path}: expected embeddings as wide as the layers, got embedding_size: {config.embedding_size}; use another model")


def _unreadable(path: str, folder: bool, error: Exception) -> str:
    if isinstance(error, KeyError) or "model type" in str(error) or "model_type" in str(error):
        return f"expected a model of a known family ({', '.join(FAMILIES)}), got another or none in config.json; use one of those"
    if "custom code" in str(error):
        return (
            f"expected a model of a known family ({', '.join(FAMILIES)}), got one with its own code, which is never run; use one of those"
        )
    if folder:
        return f"expected a readable config.json, got {one_line(error)}; fetch the model again"
    return "expected a model folder or a name that the hub or its cache knows, got neither; check the path, or the network"
