"""Where each Hugging Face architecture keeps its parts: one row a family, attribute paths and configuration names only.

A new encoder family is a new row (and a tiny model of it in the tests); nothing else in kd knows a family's names.
"""

from dataclasses import dataclass
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
    """Attribute paths inside one transformer layer, post-norm order; the names are LAYER_PARTS."""

    query: str
    key: str
    value: str
    attention_output: str
    attention_norm: str
    feed_forward_up: str
    feed_forward_down: str
    feed_forward_norm: str


@dataclass(frozen=True)
class ConfigNames:
    """What the family's config.json calls its sizes and switches."""

    layers: str = "num_hidden_layers"
    width: str = "hidden_size"
    heads: str = "num_attention_heads"
    inner: str = "intermediate_size"
    activation: str = "hidden_act"
    dropout: str = "hidden_dropout_prob"
    attention_dropout: str = "attention_probs_dropout_prob"


@dataclass(frozen=True)
class Family:
    """Attribute paths from the masked-LM model down to the parts that distillation touches.

    positions_follow_padding: position 0 of a document is row pad_token_id + 1 of the position table (RoBERTa).
    head_activation: the activation of the MLM head where the code fixes it; None where it is the configuration's.
    norm_eps: LayerNorm epsilon where the code fixes it; None where it is the configuration's layer_norm_eps.
    scores: scaled_dot: attention scores are QK^T / sqrt(head size) of the parts query and key; own: something is added or turned
    (relative positions, rotations), so that query and key alone do not give them.
    """

    name: str
    base: str
    word_embeddings: str
    position_embeddings: str
    token_type_embeddings: str | None
    embedding_norm: str
    layers: str
    layer: LayerPaths
    head_dense: str
    head_norm: str
    decoder: str
    config: ConfigNames = ConfigNames()
    positions_follow_padding: bool = False
    head_activation: str | None = None
    norm_eps: float | None = None
    scores: Literal["scaled_dot", "own"] = "scaled_dot"


_BERT_LAYER = LayerPaths(
    query="attention.self.query",
    key="attention.self.key",
    value="attention.self.value",
    attention_output="attention.output.dense",
    attention_norm="attention.output.LayerNorm",
    feed_forward_up="intermediate.dense",
    feed_forward_down="output.dense",
    feed_forward_norm="output.LayerNorm",
)

_BERT = Family(
    name="bert",
    base="bert",
    word_embeddings="bert.embeddings.word_embeddings",
    position_embeddings="bert.embeddings.position_embeddings",
    token_type_embeddings="bert.embeddings.token_type_embeddings",
    embedding_norm="bert.embeddings.LayerNorm",
    layers="bert.encoder.layer",
    layer=_BERT_LAYER,
    head_dense="cls.predictions.transform.dense",
    head_norm="cls.predictions.transform.LayerNorm",
    decoder="cls.predictions.decoder",
)

_DISTILBERT = Family(
    name="distilbert",
    base="distilbert",
    word_embeddings="distilbert.embeddings.word_embeddings",
    position_embeddings="distilbert.embeddings.position_embeddings",
    token_type_embeddings=None,
    embedding_norm="distilbert.embeddings.LayerNorm",
    layers="distilbert.transformer.layer",
    layer=LayerPaths(
        query="attention.q_lin",
        key="attention.k_lin",
        value="attention.v_lin",
        attention_output="attention.out_lin",
        attention_norm="sa_layer_norm",
        feed_forward_up="ffn.lin1",
        feed_forward_down="ffn.lin2",
        feed_forward_norm="output_layer_norm",
    ),
    head_dense="vocab_transform",
    head_norm="vocab_layer_norm",
    decoder="vocab_projector",
    config=ConfigNames(
        layers="n_layers",
        width="dim",
        heads="n_heads",
        inner="hidden_dim",
        activation="activation",
        dropout="dropout",
        attention_dropout="attention_dropout",
    ),
    norm_eps=1e-12,
)

_ROBERTA = Family(
    name="roberta",
    base="roberta",
    word_embeddings="roberta.embeddings.word_embeddings",
    position_embeddings="roberta.embeddings.position_embeddings",
    token_type_embeddings="roberta.embeddings.token_type_embeddings",
    embedding_norm="roberta.embeddings.LayerNorm",
    layers="roberta.encoder.layer",
    layer=_BERT_LAYER,
    head_dense="lm_head.dense",
    head_norm="lm_head.layer_norm",
    decoder="lm_head.decoder",
    positions_follow_padding=True,
    head_activation="gelu",
)

FAMILIES = {family.name: family for family in (_BERT, _DISTILBERT, _ROBERTA)}
