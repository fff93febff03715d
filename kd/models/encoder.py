"""A Hugging Face masked-language-model encoder, seen by its structure, on packed batches.

`Encoder` runs the layers on a Batch without the MLM head. The head's transform and decoder are separate, so that logits can be made in
chunks. kd.models.config checks config.json; kd.models.loading reads the weights.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from copy import deepcopy
from typing import Any, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel
from transformers.activations import get_activation

from kd.batch import Batch
from kd.errors import KdError
from kd.kernels.dropout import Dropout, replace_dropout
from kd.models.attention.document_attention import DOCUMENTS
from kd.models.families import LAYER_PARTS, Family, family_of
from kd.models.outputs import EncoderOutputs
from kd.models.states import EncoderShape


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
        """True if documents in one row do not see each other. False for a convolution over the row (DeBERTa v2 xlarge)."""
        self._activation = get_activation(self.family.head_activation or getattr(config, names.head_activation or names.activation))

    def forward(self, batch: Batch) -> EncoderOutputs:
        """The hidden states of a batch; the MLM head is not run."""
        ids, positions = batch.input_ids, batch.positions + self.position_offset
        if self.family.masks == "embeddings_apart":
            return EncoderOutputs(self._embeddings_apart(batch, positions), {})
        if self.hf.config._attn_implementation == DOCUMENTS:
            return EncoderOutputs(self.base(input_ids=ids, attention_mask=batch.segments[:, None, None], position_ids=positions)[0], {})
        masks: Any = self._as_kernel_wants(batch.attention)
        if self.family.masks == "by_layer_type":
            near = (batch.positions[:, None, :, None] - batch.positions[:, None, None, :]).abs() <= self.hf.config.sliding_window
            masks = {"full_attention": masks, "sliding_attention": self._as_kernel_wants(batch.attention & near)}
        return EncoderOutputs(self.base(input_ids=ids, attention_mask=masks, position_ids=positions)[0], {})

    def blank(self, dtype: torch.dtype) -> Self:
        """A model of the same configuration on the CPU, with any weights. Its attention can be changed alone."""
        with torch.random.fork_rng(devices=[]):
            return self._dropping_alike(type(self)(AutoModelForMaskedLM.from_config(deepcopy(self.hf.config), dtype=dtype)))

    def key_dropout(self) -> None:
        """Use the masks of kd.kernels.dropout from now on. Layers that share their weights keep torch's, which differ from pass to pass."""
        if not self.family.shared_layers:
            replace_dropout(self.hf)

    def _dropping_alike(self, other: Self) -> Self:
        """other, with this model's kind of dropout."""
        if any(isinstance(module, Dropout) for module in self.hf.modules()):
            other.key_dropout()
        return other

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
    def drops_attention(self) -> bool:
        """True if its attention has dropout in training."""
        return bool(getattr(self.hf.config, self.family.config.attention_dropout, 0.0))

    @property
    def shape(self) -> EncoderShape:
        """Its sizes, also on the meta device."""
        return EncoderShape(self.layers, self.width, self.heads, self.family.name, self.family.scores == "scaled_dot")

    @property
    def tied(self) -> bool:
        """True if the decoder's weight is the word embedding table itself."""
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

    @property
    def attention(self) -> str:
        """The attention implementation that it runs."""
        return str(self.hf.config._attn_implementation)

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
        dtype = self.weight(self.family.word_embeddings).dtype
        return torch.zeros_like(allowed, dtype=dtype).masked_fill_(~allowed, torch.finfo(dtype).min)


def kernel_for(family: Family, kernel: str) -> str:
    """The attention implementation asked for, or the first that the family's code has."""
    return kernel if kernel in family.kernels else family.kernels[0]
