"""The description of an architecture: names of its parts, and its differences from BERT. The rows are in kd/models/families.py."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

LAYER_PARTS = (
    "query",
    "key",
    "value",
    "attention_output",
    "attention_norm",
    "feed_forward_up",
    "feed_forward_down",
    "feed_forward_norm",
)


@dataclass(frozen=True)
class LayerPaths:
    """Attribute paths inside one transformer layer, named by LAYER_PARTS; query, key and value are None where `fused_qkv` is all three."""

    query: str | None
    key: str | None
    value: str | None
    attention_output: str
    attention_norm: str
    feed_forward_up: str
    feed_forward_down: str
    feed_forward_norm: str
    fused_qkv: str | None = None
    """One matrix [3A, D]: query rows, then key rows, then value rows."""


@dataclass(frozen=True)
class ConfigNames:
    """The names of sizes and switches in the family's config.json."""

    layers: str = "num_hidden_layers"
    width: str = "hidden_size"
    heads: str = "num_attention_heads"
    inner: str = "intermediate_size"
    activation: str = "hidden_act"
    head_activation: str | None = None
    """None: the MLM head uses the layers' activation, or Family.head_activation."""
    norm_eps: str = "layer_norm_eps"
    dropout: str = "hidden_dropout_prob"
    attention_dropout: str = "attention_probs_dropout_prob"
    more_dropouts: tuple[str, ...] = ()
    embedding_width: str | None = None
    """Name in config.json of the width of token embeddings, if they may be narrower than the layers."""


@dataclass(frozen=True)
class Family:
    """Attribute paths from the masked-LM model down to the parts that distillation touches.

    decoder_bias: path of the bias parameter; None: the decoder's own bias.
    position_offset: the row of the position table for a document's position 0; None: pad_token_id + 1.
    head_activation: the activation of the MLM head if the code fixes it; None: the configuration's.
    norm_eps: LayerNorm epsilon if the code fixes it; None: the configuration's.
    norm: place of the LayerNorms.
      post: after each residual sum (BERT).
      pre: before each block, and one after the last layer.
    scores: form of the attention scores.
      scaled_dot: QK^T / sqrt(head size) of the parts query and key.
      own: something is added or rotated (relative positions, rotations), so query and key alone do not give them.
    masks: form of the attention masks that the model is given.
      one: a [B, 1, S, S] mask.
      by_layer_type: one mask for full attention and one for sliding attention.
      embeddings_apart: the embeddings get the padding, the layers a [B, S, S] mask.
    kernels: the attention implementations that its code has.
    shared_layers: all layers are passes through the same weights.
    first_layer_special: the first layer lacks parts that the others have.
    extra: axes of further weights that a narrower student has to cut (kd/student/narrow.py): path or in-layer path -> letters.
    """

    name: str
    base: str
    word_embeddings: str
    position_embeddings: str | None
    token_type_embeddings: str | None
    embedding_norm: str
    layers: str
    layer: LayerPaths
    head_dense: str
    head_norm: str
    decoder: str
    decoder_bias: str | None = None
    embedding_projection: str | None = None
    config: ConfigNames = ConfigNames()
    position_offset: int | None = 0
    head_activation: str | None = None
    norm_eps: float | None = None
    norm: Literal["post", "pre"] = "post"
    scores: Literal["scaled_dot", "own"] = "scaled_dot"
    masks: Literal["one", "by_layer_type", "embeddings_apart"] = "one"
    kernels: tuple[str, ...] = ("sdpa", "eager", "documents")
    shared_layers: bool = False
    first_layer_special: bool = False
    extra: Mapping[str, str] = field(default_factory=dict)

    @property
    def like_bert(self) -> bool:
        """True if DistilBERT's architecture can hold its weights, apart from epsilon and activations."""
        plain = self.norm == "post" and self.scores == "scaled_dot" and not self.shared_layers and self.layer.fused_qkv is None
        return plain and self.embedding_projection is None and self.position_embeddings is not None
