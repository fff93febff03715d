"""Any Hugging Face masked-language-model encoder, seen by its structure: read, checked, loaded, run on packed batches.

1. `read_config` refuses what is not a usable encoder from config.json alone, before a weight is touched.
2. `load_mlm` loads it with its MLM head; `with_new_head` gives a headless encoder a fresh one.
3. `Encoder` runs the layers on a Batch without the head, and offers the head's transform and decoder apart:
   logits can then be made in chunks.

Never runs a model folder's own code (trust_remote_code), never unpickles what safetensors can give.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel
from transformers.activations import get_activation
from transformers.utils import logging as hf_logging

from kd.batch import Batch
from kd.errors import KdError
from kd.families import FAMILIES, LAYER_PARTS, Family

HOW_TO_ADAPT = "give it one first: `stillhouse train` with teacher: null, student.init: {path} and student.new_head: true"


class Encoded(NamedTuple):
    """What the layers make of a batch. last: [B, S, D], the last layer's hidden states."""

    last: Tensor


class Encoder(nn.Module):
    """A Hugging Face MLM model seen by its structure; `hf` holds every weight, and is what gets trained and saved."""

    def __init__(self, hf: PreTrainedModel) -> None:
        super().__init__()
        self.hf = hf
        self.training = hf.training
        self.family: Family = FAMILIES[hf.config.model_type]
        names, config = self.family.config, hf.config
        self.layers = int(getattr(config, names.layers))
        self.width = int(getattr(config, names.width))
        self.heads = int(getattr(config, names.heads))
        self.vocabulary = int(config.vocab_size)
        self.position_offset = config.pad_token_id + 1 if self.family.positions_follow_padding else 0
        self.max_positions = int(config.max_position_embeddings) - self.position_offset
        """Positions a document may have (RoBERTa's table has pad_token_id + 1 rows more)."""
        self._activation = get_activation(self.family.head_activation or getattr(config, names.activation))

    def forward(self, batch: Batch) -> Encoded:
        """The hidden states of a batch; the MLM head is not run."""
        outputs = self.base(
            input_ids=batch.input_ids,
            attention_mask=self._attention(batch),
            position_ids=batch.positions + self.position_offset,
        )
        return Encoded(last=outputs[0])

    def transform(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., D]: the MLM head up to its decoder (dense, activation, LayerNorm)."""
        dense, norm = self.part(self.family.head_dense), self.part(self.family.head_norm)
        return norm(self._activation(dense(hidden)))

    def logits(self, hidden: Tensor) -> Tensor:
        """[..., D] -> [..., V], whole: for evaluation and tests; training chunks the decoder instead."""
        return F.linear(self.transform(hidden), self.decoder_weight, self.decoder_bias)

    @property
    def decoder_weight(self) -> nn.Parameter:
        """[V, D]; usually the word embeddings themselves."""
        return self.weight(self.family.decoder)

    @property
    def decoder_bias(self) -> nn.Parameter:
        """[V]"""
        return cast(nn.Parameter, self.part(self.family.decoder).bias)

    @property
    def tied(self) -> bool:
        """Whether the decoder's weight is the word embedding table itself."""
        return self.decoder_weight is self.weight(self.family.word_embeddings)

    @property
    def base(self) -> nn.Module:
        """The encoder without its MLM head."""
        return self.part(self.family.base)

    @property
    def layer_modules(self) -> list[nn.Module]:
        """The transformer layers, first to last."""
        return list(self.part(self.family.layers).children())

    def part(self, path: str) -> nn.Module:
        """The module at one of the family's paths."""
        return self.hf.get_submodule(path)

    def weight(self, path: str) -> nn.Parameter:
        """The weight of the module at one of the family's paths."""
        return cast(nn.Parameter, self.part(path).weight)

    def layer_part(self, layer: int, name: str) -> nn.Module:
        """One of LAYER_PARTS of one layer."""
        assert name in LAYER_PARTS, name
        return self.layer_modules[layer].get_submodule(getattr(self.family.layer, name))

    def _attention(self, batch: Batch) -> Tensor:
        """[B, 1, S, S]: bool for the fused kernels; for eager attention, which adds its mask, 0 or the dtype's minimum."""
        allowed = batch.attention
        if self.hf.config._attn_implementation != "eager":
            return allowed
        dtype = self.decoder_weight.dtype
        return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)


def read_config(path: str) -> PreTrainedConfig:
    """The configuration of a model folder or hub name, proven usable as an encoder here.

    Raises KdError for a missing folder, one that holds no model, a family that is not in the table, a variant that
    would be computed wrongly, and heads that do not divide the width.
    """
    folder = _is_folder(path)
    if folder and not Path(path).is_dir():
        raise KdError(f"{path}: expected a model folder, got nothing there; check the path")
    if folder and not (Path(path) / "config.json").is_file():
        raise KdError(f"{path}: expected a model folder with config.json, got none; point to a Hugging Face model folder")
    try:
        with quiet_transformers():
            config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError, StrictDataclassError) as error:
        raise KdError(f"{path}: {_unreadable(path, folder, error)}") from error
    _check_config(path, config)
    return config


def load_mlm(path: str, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Encoder:
    """A masked-LM encoder with the head that its folder holds, on the CPU, in eval mode.

    Raises KdError when the weights have no MLM head, lack or contradict what config.json describes, or cannot be read.
    """
    config = read_config(path)
    family = FAMILIES[config.model_type]
    names = _stored_names(path)
    if names and not _has_head(names, family):
        raise KdError(_headless(path))
    encoder, missing = _load(path, config, dtype, attention)
    if any(name.startswith(f"{family.head_dense}.") for name in missing):
        raise KdError(_headless(path))
    if missing:
        raise KdError(_incomplete(path, missing))
    return encoder


def with_new_head(path: str, seed: int, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Encoder:
    """A headless encoder of a folder with a fresh MLM head: decoder tied to the word embeddings, bias 0, transform as `seed` says.

    The transform is Hugging Face's N(0, 0.02): on the 6 x 384 encoder, head only, 60 updates of 16 x 64 tokens at lr 1e-3, it reached
    6.17 nats where the identity reached 6.24 and an orthogonal matrix 6.23, and it led at every point before (2026-11-24).
    Raises KdError when the folder already has a head (it would be thrown away), or lacks more than one.
    """
    config = read_config(path)
    family = FAMILIES[config.model_type]
    config.tie_word_embeddings = True
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder, missing = _load(path, config, dtype, attention)
    body = [name for name in missing if name.startswith(f"{family.base}.")]
    if body:
        raise KdError(_incomplete(path, body))
    if not any(name.startswith(f"{family.head_dense}.") for name in missing):
        raise KdError(f"{path}: expected an encoder without an MLM head, got one that has it; set student.new_head: false to keep it")
    return encoder


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
    if FAMILIES[kind].positions_follow_padding and config.pad_token_id is None:
        raise KdError(f"{path}: expected a pad_token_id, which positions start from, got null; set it in config.json")
    names = FAMILIES[kind].config
    width, heads = getattr(config, names.width), getattr(config, names.heads)
    if heads < 1 or width % heads:
        raise KdError(f"{path}: expected {names.heads} to divide {names.width} = {width}, got {heads} heads; correct config.json")


def _load(path: str, config: PreTrainedConfig, dtype: torch.dtype, attention: str) -> tuple[Encoder, list[str]]:
    """The model and the sorted names that its files lack.

    KdError for files that cannot be read or hold more layers than config.json says.
    """
    config.output_hidden_states = False
    config.output_attentions = False
    try:
        with quiet_transformers():
            model, report = AutoModelForMaskedLM.from_pretrained(
                path,
                config=config,
                dtype=dtype,
                attn_implementation=attention,
                trust_remote_code=False,
                output_loading_info=True,
                use_safetensors=None,
            )
    except (OSError, RuntimeError, ValueError, KeyError, SafetensorError) as error:
        raise KdError(f"{path}: expected weights that fit config.json, got {_one_line(error)}; fetch the model again") from error
    layers = f"{FAMILIES[config.model_type].layers}."
    extra = sorted(name for name in report["unexpected_keys"] if layers in f"{FAMILIES[config.model_type].base}.{name}")
    if extra:
        raise KdError(f"{path}: expected the layers that config.json describes, got weights beyond them ({extra[0]}); correct config.json")
    return Encoder(model), sorted(report["missing_keys"])


def _stored_names(path: str) -> set[str]:
    """The tensor names in a local folder's safetensors files, read from their headers only; empty where there are none."""
    names: set[str] = set()
    files = sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else []
    for file in files:
        try:
            with safe_open(file, framework="pt") as tensors:
                names.update(tensors.keys())
        except (OSError, SafetensorError) as error:
            raise KdError(f"{file}: expected a whole safetensors file, got {_one_line(error)}; fetch it again") from error
    return names


def _has_head(names: set[str], family: Family) -> bool:
    return any(name.startswith(f"{family.head_dense}.") for name in names)


def _is_folder(path: str) -> bool:
    """Whether a user who wrote this meant a folder and not a name on the hub (`name` or `owner/name`)."""
    return (
        Path(path).exists()
        or path.startswith(("/", ".", "~"))
        or path.count("/") > 1
        or path.endswith("/")
        or Path(Path(path).parts[0] if path else ".").is_dir()
    )


def _headless(path: str) -> str:
    return f"{path}: expected a model with a masked-LM head, got an encoder without one; {HOW_TO_ADAPT.format(path=path)}"


def _incomplete(path: str, missing: list[str]) -> str:
    return (
        f"{path}: expected every weight that config.json describes, got none for {len(missing)} of them "
        f"({missing[0]} …); fetch the model again or correct config.json"
    )


def _unreadable(path: str, folder: bool, error: Exception) -> str:
    if isinstance(error, KeyError) or "model type" in str(error) or "model_type" in str(error):
        return f"expected a model of a known family ({', '.join(FAMILIES)}), got another or none in config.json; use one of those"
    if folder:
        return f"expected a readable config.json, got {_one_line(error)}; fetch the model again"
    return "expected a model folder or a name that the hub or its cache knows, got neither; check the path, or the network"


def _one_line(error: Exception) -> str:
    """A third party's message, on one line of bearable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.rstrip(".;: ") if len(text) <= 200 else f"{text[:200]}…"
