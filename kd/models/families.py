"""The parts of each Hugging Face architecture: one row a family, attribute paths and configuration names only.

A new encoder family is a new row (and a tiny model of it in the tests); nothing else in kd knows a family's names.
`family_of` gives the row of a configuration and handles variants of one model_type: DeBERTa's two heads, tables that a model lacks.
"""

from dataclasses import replace

from transformers import PreTrainedConfig

from kd.models.family import LAYER_PARTS as LAYER_PARTS
from kd.models.family import ConfigNames as ConfigNames
from kd.models.family import Family as Family
from kd.models.family import LayerPaths as LayerPaths

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
    position_offset=None,
    head_activation="gelu",
)

_ELECTRA = Family(
    name="electra",
    base="electra",
    word_embeddings="electra.embeddings.word_embeddings",
    position_embeddings="electra.embeddings.position_embeddings",
    token_type_embeddings="electra.embeddings.token_type_embeddings",
    embedding_norm="electra.embeddings.LayerNorm",
    embedding_projection="electra.embeddings_project",
    layers="electra.encoder.layer",
    layer=_BERT_LAYER,
    head_dense="generator_predictions.dense",
    head_norm="generator_predictions.LayerNorm",
    decoder="generator_lm_head",
    config=ConfigNames(embedding_width="embedding_size"),
    head_activation="gelu",
)

_MPNET = Family(
    name="mpnet",
    base="mpnet",
    word_embeddings="mpnet.embeddings.word_embeddings",
    position_embeddings="mpnet.embeddings.position_embeddings",
    token_type_embeddings=None,
    embedding_norm="mpnet.embeddings.LayerNorm",
    layers="mpnet.encoder.layer",
    layer=LayerPaths(
        query="attention.attn.q",
        key="attention.attn.k",
        value="attention.attn.v",
        attention_output="attention.attn.o",
        attention_norm="attention.LayerNorm",
        feed_forward_up="intermediate.dense",
        feed_forward_down="output.dense",
        feed_forward_norm="output.LayerNorm",
    ),
    head_dense="lm_head.dense",
    head_norm="lm_head.layer_norm",
    decoder="lm_head.decoder",
    position_offset=2,  # its code fixes the padding row at 1
    head_activation="gelu",
    scores="own",
    kernels=("eager",),
    extra={"mpnet.encoder.relative_attention_bias.weight": "RH"},
)

_DEBERTA_V2 = Family(
    name="deberta-v2",
    base="deberta",
    word_embeddings="deberta.embeddings.word_embeddings",
    position_embeddings="deberta.embeddings.position_embeddings",
    token_type_embeddings="deberta.embeddings.token_type_embeddings",
    embedding_norm="deberta.embeddings.LayerNorm",
    layers="deberta.encoder.layer",
    layer=replace(_BERT_LAYER, query="attention.self.query_proj", key="attention.self.key_proj", value="attention.self.value_proj"),
    head_dense="lm_predictions.lm_head.dense",
    head_norm="lm_predictions.lm_head.LayerNorm",
    decoder="deberta.embeddings.word_embeddings",
    decoder_bias="lm_predictions.lm_head.bias",
    scores="own",
    masks="embeddings_apart",
    kernels=("eager",),
    extra={
        "deberta.encoder.rel_embeddings.weight": "RD",
        "deberta.encoder.LayerNorm.weight": "D",
        "deberta.encoder.LayerNorm.bias": "D",
        "deberta.encoder.conv.conv.weight": "DDR",
        "deberta.encoder.conv.conv.bias": "D",
        "deberta.encoder.conv.LayerNorm.weight": "D",
        "deberta.encoder.conv.LayerNorm.bias": "D",
        "attention.self.pos_key_proj.weight": "KD",
        "attention.self.pos_key_proj.bias": "K",
        "attention.self.pos_query_proj.weight": "QD",
        "attention.self.pos_query_proj.bias": "Q",
    },
)

_DEBERTA_V2_LEGACY = replace(
    _DEBERTA_V2,
    head_dense="cls.predictions.transform.dense",
    head_norm="cls.predictions.transform.LayerNorm",
    decoder="cls.predictions.decoder",
    decoder_bias=None,
)

_MODERNBERT = Family(
    name="modernbert",
    base="model",
    word_embeddings="model.embeddings.tok_embeddings",
    position_embeddings=None,
    token_type_embeddings=None,
    embedding_norm="model.embeddings.norm",
    layers="model.layers",
    layer=LayerPaths(
        query=None,
        key=None,
        value=None,
        fused_qkv="attn.Wqkv",
        attention_output="attn.Wo",
        attention_norm="attn_norm",
        feed_forward_up="mlp.Wi",
        feed_forward_down="mlp.Wo",
        feed_forward_norm="mlp_norm",
    ),
    head_dense="head.dense",
    head_norm="head.norm",
    decoder="decoder",
    config=ConfigNames(
        activation="hidden_activation",
        head_activation="classifier_activation",
        norm_eps="norm_eps",
        dropout="mlp_dropout",
        attention_dropout="attention_dropout",
        more_dropouts=("embedding_dropout",),
    ),
    norm="pre",
    scores="own",
    masks="by_layer_type",
    kernels=("sdpa", "eager"),
    first_layer_special=True,
    extra={"model.final_norm.weight": "D", "model.final_norm.bias": "D"},
)

_ALBERT = Family(
    name="albert",
    base="albert",
    word_embeddings="albert.embeddings.word_embeddings",
    position_embeddings="albert.embeddings.position_embeddings",
    token_type_embeddings="albert.embeddings.token_type_embeddings",
    embedding_norm="albert.embeddings.LayerNorm",
    embedding_projection="albert.encoder.embedding_hidden_mapping_in",
    layers="albert.encoder.albert_layer_groups",
    layer=LayerPaths(
        query="albert_layers.0.attention.query",
        key="albert_layers.0.attention.key",
        value="albert_layers.0.attention.value",
        attention_output="albert_layers.0.attention.dense",
        attention_norm="albert_layers.0.attention.LayerNorm",
        feed_forward_up="albert_layers.0.ffn",
        feed_forward_down="albert_layers.0.ffn_output",
        feed_forward_norm="albert_layers.0.full_layer_layer_norm",
    ),
    head_dense="predictions.dense",
    head_norm="predictions.LayerNorm",
    decoder="predictions.decoder",
    config=ConfigNames(embedding_width="embedding_size"),
    shared_layers=True,
)

FAMILIES = {
    family.name: family
    for family in (
        _BERT,
        _DISTILBERT,
        _ROBERTA,
        replace(_ROBERTA, name="xlm-roberta"),
        replace(_ROBERTA, name="camembert"),
        _ELECTRA,
        _MPNET,
        _DEBERTA_V2,
        _MODERNBERT,
        _ALBERT,
    )
}


def family_of(config: PreTrainedConfig) -> Family:
    """The family of a model's configuration, without the tables that this model does not have. KeyError for an unknown model_type."""
    family = FAMILIES[config.model_type]
    if family is _DEBERTA_V2:
        family = _DEBERTA_V2_LEGACY if config.legacy else family
        if not config.position_biased_input:
            family = replace(family, position_embeddings=None)
        if config.type_vocab_size == 0:
            family = replace(family, token_type_embeddings=None)
    if family is _ELECTRA and config.embedding_size == config.hidden_size:
        family = replace(family, embedding_projection=None)
    return family
