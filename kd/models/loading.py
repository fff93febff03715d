"""Encoders from model folders and hub names: with their MLM head, with a fresh one, or untrained.

A model folder's own code never runs (trust_remote_code). A pickle is read by torch's reader of weights alone, and only where there is no
safetensors file.
"""

import hashlib
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForMaskedLM, PreTrainedConfig

from kd.errors import KdError
from kd.models.config import quiet_transformers, read_config
from kd.models.encoder import Encoder, kernel_for
from kd.models.families import Family, family_of
from kd.models.weight_files import check_names, stored_names, weight_files
from stillhouse.errors import one_line

HOW_TO_ADAPT = "give it one first: `stillhouse train` with teacher: null, student.init: {path} and student.new_head: true"


def untrained(config: PreTrainedConfig, attention: str = "sdpa") -> Encoder:
    """A model of this configuration with fresh weights, fp32, where torch's default device is."""
    with quiet_transformers():
        kernel = kernel_for(family_of(config), attention)
        return Encoder(AutoModelForMaskedLM.from_config(config, dtype=torch.float32, attn_implementation=kernel))


def load_mlm(path: str, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Encoder:
    """A masked-LM encoder with the head that its folder holds, on the CPU, in eval mode.

    Raises KdError for weights that have no MLM head, contradict config.json, are not finite, or cannot be read.
    """
    config = read_config(path)
    family = family_of(config)
    _check_head(path, config)
    encoder, missing = load(path, config, dtype, attention)
    if any(name.startswith(f"{family.head_dense}.") for name in missing):
        raise KdError(_headless(path))
    if missing:
        raise KdError(incomplete(path, missing))
    return encoder


def check_mlm_head(path: str) -> None:
    """Raise KdError for a folder whose files have no MLM head. Reads the names of the weights alone; says nothing of what has no names."""
    _check_head(path, read_config(path))


def _check_head(path: str, config: PreTrainedConfig) -> None:
    family = family_of(config)
    names = _names(path, config)
    if names:
        check_names(path, names, family)
    if names and not _has_head(names, family):
        other = next((name for name in sorted(names) if name.startswith(("lm_predictions.", "cls.predictions."))), None)
        if other and family.name == "deberta-v2":
            legacy = str(other.startswith("cls.")).lower()
            raise KdError(f"{path}: expected the head that config.json describes, got {other}; set legacy: {legacy} in config.json")
        raise KdError(_headless(path))


def with_new_head(path: str, seed: int, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Encoder:
    """A headless encoder of a folder with a fresh MLM head: decoder tied to the word embeddings, bias 0, transform as `seed` says.

    The transform is Hugging Face's N(0, 0.02). On the 6 x 384 encoder, head only, 60 updates of 16 x 64 tokens at lr 1e-3, it reached
    6.17 nats. The identity reached 6.24 and an orthogonal matrix 6.23 (2026-11-24).
    Raises KdError for a folder that already has a head (it would be lost), or lacks more than a head.
    """
    config = read_config(path)
    family = family_of(config)
    config.tie_word_embeddings = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, missing = load(path, config, dtype, attention)
    body = [name for name in missing if name.startswith(f"{family.base}.")]
    if body:
        raise KdError(incomplete(path, body))
    if not any(name.startswith(f"{family.head_dense}.") for name in missing):
        raise KdError(f"{path}: expected an encoder without an MLM head, got one that has it; set student.new_head: false to keep it")
    return encoder


def weights_digest(encoder: Encoder) -> str:
    """sha256 of every weight by its name, in the dtype that it has here."""
    digest = hashlib.sha256()
    for name, weight in sorted(encoder.hf.named_parameters()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def load(
    path: str, config: PreTrainedConfig, dtype: torch.dtype, attention: str, model_class: Any = AutoModelForMaskedLM
) -> tuple[Encoder, list[str]]:
    """The model and the sorted names that its files lack.

    model_class: the class of transformers that the folder is read as. For a task, weights outside the encoder that have another shape
    are among the names.

    Raises KdError for files that cannot be read, and for weights that are not finite or not those that config.json describes.
    """
    family = family_of(config)
    config.output_hidden_states = False
    config.output_attentions = False
    _names(path, config)
    try:
        with quiet_transformers():
            model, report = model_class.from_pretrained(
                path,
                config=config,
                dtype=dtype,
                attn_implementation=kernel_for(family, attention),
                trust_remote_code=False,
                output_loading_info=True,
                use_safetensors=None,
                ignore_mismatched_sizes=True,  # they are refused below, by name
            )
    except Exception as error:  # a dozen kinds from transformers, safetensors and torch's own reader of pickles
        if "Weights only load failed" in str(error):
            got = "a pickle with more in it than numbers, which was not run; ask for safetensors"
            raise KdError(f"{path}: expected weights alone, got {got}") from None
        raise KdError(f"{path}: expected weights that fit config.json, got {one_line(error)}; fetch the model again") from error
    encoder = Encoder(model)
    missing = _without_twin_biases(encoder, set(report["missing_keys"]))
    mismatched = report["mismatched_keys"]
    if model_class is not AutoModelForMaskedLM:  # the head of another task
        beside = {entry[0] for entry in mismatched if not entry[0].startswith(f"{family.base}.")}
        mismatched, missing = [entry for entry in mismatched if entry[0] not in beside], missing | beside
    _check_fit(path, family, mismatched, set(report["unexpected_keys"]), missing)
    broken = next((name for name, weight in model.named_parameters() if name not in missing and not torch.isfinite(weight).all()), None)
    if broken:
        raise KdError(f"{path}: expected finite weights, got NaN or infinity in {broken}; use an earlier checkpoint of the model")
    return encoder, sorted(missing)


def _without_twin_biases(encoder: Encoder, missing: set[str]) -> set[str]:
    """`missing` without a decoder bias that the files hold under its other name.

    Older versions of transformers stored `predictions.bias` once, for itself and for `predictions.decoder.bias`. Where the decoder is not
    tied, today's version takes them for two parameters.
    """
    head, _, last = encoder.family.decoder.rpartition(".")
    twins = (f"{encoder.family.decoder}.bias", f"{head}.bias")
    parameters = dict(encoder.hf.named_parameters())
    if last != "decoder" or not all(name in parameters for name in twins):
        return missing
    for name, other in (twins, twins[::-1]):
        if name in missing and other not in missing:
            parameters[name].data.copy_(parameters[other].data)
            return missing - {name}
    return missing


def _check_fit(
    path: str, family: Family, mismatched: list[tuple[str, torch.Size, torch.Size]], unexpected: set[str], missing: set[str]
) -> None:
    """Raise KdError for weights of other shapes, behind other names, or of more layers than config.json says."""
    if mismatched:
        name, stored, expected = min(mismatched, key=lambda entry: entry[0])
        more = f", and {len(mismatched) - 1} more" if len(mismatched) > 1 else ""
        got = f"{list(stored)} in the weights{more}"
        raise KdError(f"{path}: expected {name} of shape {list(expected)}, as config.json says, got {got}; correct config.json")
    if any(name.startswith(f"{family.word_embeddings}.") for name in missing):
        check_names(path, unexpected, family)
    extra = sorted(name for name in unexpected if f"{family.layers}." in f"{family.base}.{name}")
    if extra:
        raise KdError(f"{path}: expected the layers that config.json describes, got weights beyond them ({extra[0]}); correct config.json")


def _names(path: str, config: PreTrainedConfig) -> set[str]:
    """The names of a folder's weights, as far as safetensors headers tell; empty for a hub name. Raises KdError for broken files."""
    folder = Path(path)
    return stored_names(weight_files(folder, getattr(config, "transformers_weights", None))) if folder.is_dir() else set()


def _has_head(names: set[str], family: Family) -> bool:
    return any(name.startswith(f"{family.head_dense}.") for name in names)


def _headless(path: str) -> str:
    return f"{path}: expected a model with a masked-LM head, got an encoder without one; {HOW_TO_ADAPT.format(path=path)}"


def incomplete(path: str, missing: list[str]) -> str:
    return (
        f"{path}: expected every weight that config.json describes, got none for {len(missing)} of them "
        f"({missing[0]} …); fetch the model again or correct config.json"
    )
