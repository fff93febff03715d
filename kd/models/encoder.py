"""Any Hugging Face masked-language-model encoder, seen by its structure: read, checked, loaded, run on packed batches.

1. `read_config` refuses what is not a usable encoder from config.json alone, before a weight is touched.
2. `load_mlm` loads it with its MLM head; `with_new_head` gives a headless encoder a fresh one.
3. `Encoder` runs the layers on a Batch without the head, and offers the head's transform and decoder apart:
   logits can then be made in chunks.

Never runs a model folder's own code (trust_remote_code), never unpickles what safetensors can give.
"""

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedConfig, PreTrainedModel
from transformers.activations import get_activation

from kd.batch import Batch
from kd.errors import KdError
from kd.models.config import quiet_transformers as quiet_transformers
from kd.models.config import read_config as read_config
from kd.models.families import LAYER_PARTS, Family, family_of
from kd.models.outputs import EncoderOutputs
from kd.models.states import EncoderShape
from stillhouse.errors import one_line

HOW_TO_ADAPT = "give it one first: `stillhouse train` with teacher: null, student.init: {path} and student.new_head: true"


class Encoder(nn.Module):
    """A Hugging Face MLM model seen by its structure; `hf` holds every weight, and is what gets trained and saved."""

    def __init__(self, hf: PreTrainedModel) -> None:
        super().__init__()
        self.hf = hf
        self.training = hf.training
        self.family: Family = family_of(hf.config)
        names, config = self.family.config, hf.config
        self.layers = int(getattr(config, names.layers))
        self.width = int(getattr(config, names.width))
        self.heads = int(getattr(config, names.heads))
        self.vocabulary = int(config.vocab_size)
        offset = self.family.position_offset
        self.position_offset = int(config.pad_token_id) + 1 if offset is None else offset
        self.max_positions = int(config.max_position_embeddings) - self.position_offset
        """Positions a document may have (RoBERTa's table has pad_token_id + 1 rows more)."""
        self.has_convolution = bool(getattr(config, "conv_kernel_size", 0))
        """True: a convolution over the row follows the first layer (DeBERTa v2 xlarge)."""
        self.packs = not self.has_convolution
        """Whether documents side by side in a row stay apart; not where a convolution runs over the row (DeBERTa v2 xlarge)."""
        self._activation = get_activation(self.family.head_activation or getattr(config, names.head_activation or names.activation))

    def forward(self, batch: Batch) -> EncoderOutputs:
        """The hidden states of a batch; the MLM head is not run."""
        ids, positions = batch.input_ids, batch.positions + self.position_offset
        if self.family.masks == "embeddings_apart":
            return EncoderOutputs(self._embeddings_apart(batch, positions), {})
        masks: Any = self._as_kernel_wants(batch.attention)
        if self.family.masks == "by_layer_type":
            near = (batch.positions[:, None, :, None] - batch.positions[:, None, None, :]).abs() <= self.hf.config.sliding_window
            masks = {"full_attention": masks, "sliding_attention": self._as_kernel_wants(batch.attention & near)}
        return EncoderOutputs(self.base(input_ids=ids, attention_mask=masks, position_ids=positions)[0], {})

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """In eval mode meanwhile, without dropout; afterwards as before."""
        training = self.training
        self.eval()
        try:
            yield
        finally:
            self.train(training)

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
        path = self.family.decoder_bias or f"{self.family.decoder}.bias"
        return cast(nn.Parameter, self.hf.get_parameter(path))

    @property
    def shape(self) -> EncoderShape:
        """Its sizes, also on the meta device."""
        return EncoderShape(self.layers, self.width, self.heads, self.family.name, self.family.scores == "scaled_dot")

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
        """The transformer layers, first to last; the same one over and over where the family shares them."""
        modules = list(self.part(self.family.layers).children())
        return modules * self.layers if self.family.shared_layers else modules

    def part(self, path: str) -> nn.Module:
        """The module at one of the family's paths."""
        return self.hf.get_submodule(path)

    def weight(self, path: str) -> nn.Parameter:
        """The weight of the module at one of the family's paths."""
        return cast(nn.Parameter, self.part(path).weight)

    def layer_part(self, layer: int, name: str) -> nn.Module:
        """One of LAYER_PARTS of one layer. KdError for a part that the family has fused with others."""
        assert name in LAYER_PARTS, name
        path = getattr(self.family.layer, name)
        if path is None:
            raise KdError(f"{self.family.name}: expected a {name} of its own in each layer, got one matrix for query, key and value")
        return self.layer_modules[layer].get_submodule(path)

    def load_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Copy these values into the parameters of these names."""
        parameters = dict(self.named_parameters())
        with torch.no_grad():
            for name, weight in weights.items():
                parameters[name].copy_(weight)

    def use_attention(self, kernel: str) -> None:
        """Run this attention implementation from now on, or the one that the family's code has."""
        self.hf.set_attn_implementation(kernel_for(self.family, kernel))

    def checkpoint_activations(self, use_reentrant: bool) -> None:
        """Compute activations again in the backward pass. KdError where the family's code cannot.

        use_reentrant: torch's older way, which ZeRO stage 3 needs; DeBERTa's relative positions come as keywords, which it does not take.
        """
        if not self.hf.supports_gradient_checkpointing:
            raise KdError(f"train.activation_checkpointing: expected a family whose code can, got {self.family.name}; set it to false")
        if use_reentrant and self.family.masks == "embeddings_apart":
            raise KdError(f"train.activation_checkpointing: expected train.zero_stage below 3 for {self.family.name}, got 3; change either")
        self.hf.activation_checkpointing_enable({"use_reentrant": use_reentrant})

    def _embeddings_apart(self, batch: Batch, positions: Tensor) -> Tensor:
        """[B, S, D] of a model whose embeddings take the padding [B, S] and whose layers take [B, S, S].

        A convolution over the row has to know the padding, and then takes [B, S] alone: one document a row.
        """
        base, padding = cast(Any, self.base), batch.real.long()
        embedded = base.embeddings(input_ids=batch.input_ids, position_ids=positions, mask=padding)
        mask = batch.attention[:, 0].long() if self.packs else padding
        return cast(Tensor, base.encoder(embedded, mask, output_hidden_states=False)[0])

    def _as_kernel_wants(self, allowed: Tensor) -> Tensor:
        """[B, 1, S, S]: bool for the fused kernels; for eager attention, which adds its mask, 0 or the dtype's minimum."""
        if self.hf.config._attn_implementation != "eager":
            return allowed
        dtype = self.decoder_weight.dtype
        return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)


def kernel_for(family: Family, kernel: str) -> str:
    """The attention implementation asked for, or the first that the family's code has."""
    return kernel if kernel in family.kernels else family.kernels[0]


def untrained(config: PreTrainedConfig, attention: str = "sdpa") -> Encoder:
    """A model of this configuration with fresh weights, fp32, where torch's default device is."""
    with quiet_transformers():
        kernel = kernel_for(family_of(config), attention)
        return Encoder(AutoModelForMaskedLM.from_config(config, dtype=torch.float32, attn_implementation=kernel))


def load_mlm(path: str, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Encoder:
    """A masked-LM encoder with the head that its folder holds, on the CPU, in eval mode.

    Raises KdError when the weights have no MLM head, lack or contradict what config.json describes, or cannot be read.
    """
    config = read_config(path)
    family = family_of(config)
    names = _stored_names(path)
    if names and not _has_head(names, family):
        other = next((name for name in names if name.startswith(("lm_predictions.", "cls.predictions."))), None)
        if other and family.name == "deberta-v2":
            legacy = str(other.startswith("cls.")).lower()
            raise KdError(f"{path}: expected the head that config.json describes, got {other}; set legacy: {legacy} in config.json")
        raise KdError(_headless(path))
    encoder, missing = _load(path, config, dtype, attention)
    if any(name.startswith(f"{family.head_dense}.") for name in missing):
        raise KdError(_headless(path))
    if missing:
        raise KdError(_incomplete(path, missing))
    return encoder


def weights_digest(encoder: Encoder) -> str:
    """sha256 of every weight by its name, in the dtype that it has here."""
    digest = hashlib.sha256()
    for name, weight in sorted(encoder.hf.named_parameters()):
        digest.update(f"{name} {weight.dtype} {tuple(weight.shape)}".encode())
        digest.update(weight.detach().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def with_new_head(path: str, seed: int, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Encoder:
    """A headless encoder of a folder with a fresh MLM head: decoder tied to the word embeddings, bias 0, transform as `seed` says.

    The transform is Hugging Face's N(0, 0.02): on the 6 x 384 encoder, head only, 60 updates of 16 x 64 tokens at lr 1e-3, it reached
    6.17 nats where the identity reached 6.24 and an orthogonal matrix 6.23, and it led at every point before (2026-11-24).
    Raises KdError when the folder already has a head (it would be thrown away), or lacks more than one.
    """
    config = read_config(path)
    family = family_of(config)
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


def _load(path: str, config: PreTrainedConfig, dtype: torch.dtype, attention: str) -> tuple[Encoder, list[str]]:
    """The model and the sorted names that its files lack.

    KdError for files that cannot be read or hold more layers than config.json says.
    """
    family = family_of(config)
    config.output_hidden_states = False
    config.output_attentions = False
    try:
        with quiet_transformers():
            model, report = AutoModelForMaskedLM.from_pretrained(
                path,
                config=config,
                dtype=dtype,
                attn_implementation=kernel_for(family, attention),
                trust_remote_code=False,
                output_loading_info=True,
                use_safetensors=None,
            )
    except Exception as error:  # a dozen kinds from transformers, safetensors and torch's own reader of pickles
        if "Weights only load failed" in str(error):
            got = "a pickle with more in it than numbers, which was not run; ask for safetensors"
            raise KdError(f"{path}: expected weights alone, got {got}") from None
        raise KdError(f"{path}: expected weights that fit config.json, got {one_line(error)}; fetch the model again") from error
    extra = sorted(name for name in report["unexpected_keys"] if f"{family.layers}." in f"{family.base}.{name}")
    if extra:
        raise KdError(f"{path}: expected the layers that config.json describes, got weights beyond them ({extra[0]}); correct config.json")
    return Encoder(model), sorted(report["missing_keys"])


def _stored_names(path: str) -> set[str]:
    """The tensor names in a local folder's safetensors files, read from their headers only; empty where there are none."""
    names: set[str] = set()
    files = sorted(Path(path).glob("*.safetensors")) if Path(path).is_dir() else []
    for file in files:
        if not file.is_file():  # a pipe would be waited for, for ever
            raise KdError(f"{file}: expected a whole safetensors file, got something else; fetch it again")
        try:
            with safe_open(file, framework="pt") as tensors:
                names.update(tensors.keys())
        except (OSError, SafetensorError) as error:
            raise KdError(f"{file}: expected a whole safetensors file, got {one_line(error)}; fetch it again") from error
    return names


def _has_head(names: set[str], family: Family) -> bool:
    return any(name.startswith(f"{family.head_dense}.") for name in names)


def _headless(path: str) -> str:
    return f"{path}: expected a model with a masked-LM head, got an encoder without one; {HOW_TO_ADAPT.format(path=path)}"


def _incomplete(path: str, missing: list[str]) -> str:
    return (
        f"{path}: expected every weight that config.json describes, got none for {len(missing)} of them "
        f"({missing[0]} …); fetch the model again or correct config.json"
    )
