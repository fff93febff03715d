"""Tiny encoders with visible random weights, as folders and as Encoder objects, and a packed batch for them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModelForMaskedLM,
    BertConfig,
    BertForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
)

from kd.batch import IGNORED, Batch
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder

VOCABULARY = 120
WIDTH = 32
HEADS = 4
MAX_POSITIONS = 40


def visible(model: PreTrainedModel, seed: int) -> PreTrainedModel:
    """The model with every weight random and of an order that shows: biases, token types and LayerNorms included."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            is_norm = "norm" in name.lower() and name.endswith("weight")
            weight.copy_(1.0 + 0.2 * noise if is_norm else (0.1 if name.endswith("bias") else 0.2) * noise)
    return model.eval()


def bert_model(seed: int = 1, layers: int = 4, **overrides: object) -> PreTrainedModel:
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": MAX_POSITIONS,
    }
    return visible(BertForMaskedLM(BertConfig(**(sizes | overrides))), seed)


def distilbert_model(seed: int = 1, layers: int = 4, **overrides: object) -> PreTrainedModel:
    sizes = {
        "vocab_size": VOCABULARY,
        "dim": WIDTH,
        "n_heads": HEADS,
        "n_layers": layers,
        "hidden_dim": 2 * WIDTH,
        "max_position_embeddings": MAX_POSITIONS,
    }
    return visible(DistilBertForMaskedLM(DistilBertConfig(**(sizes | overrides))), seed)


def roberta_model(seed: int = 1, layers: int = 4, **overrides: object) -> PreTrainedModel:
    """pad_token_id 1 and two position rows more than usable positions, epsilon 1e-5: as the real ones have it."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "num_hidden_layers": layers,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": MAX_POSITIONS + 2,
        "layer_norm_eps": 1e-5,
        "type_vocab_size": 1,
    }
    return visible(RobertaForMaskedLM(RobertaConfig(**(sizes | overrides))), seed)


def other_model(model_type: str, **own: object) -> Callable[..., PreTrainedModel]:
    """A tiny model of one of the other families: BERT's sizes, what the family's released models have otherwise, and overrides."""
    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "num_attention_heads": HEADS,
        "intermediate_size": 2 * WIDTH,
        "max_position_embeddings": MAX_POSITIONS,
        "pad_token_id": 0,
    }

    def make(seed: int = 1, layers: int = 4, **overrides: object) -> PreTrainedModel:
        config = AutoConfig.for_model(model_type, **(sizes | {"num_hidden_layers": layers} | own | overrides))
        with quiet_transformers():
            return visible(AutoModelForMaskedLM.from_config(config), seed)

    return make


_AFTER_PADDING = {"pad_token_id": 1, "max_position_embeddings": MAX_POSITIONS + 2, "layer_norm_eps": 1e-5}
_SMALL_IDS = {"cls_token_id": 2, "bos_token_id": 2, "sep_token_id": 3, "eos_token_id": 3}
_RELATIVE = {
    "relative_attention": True,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
}

MODELS: dict[str, Callable[..., PreTrainedModel]] = {
    "bert": bert_model,
    "distilbert": distilbert_model,
    "roberta": roberta_model,
    "xlm-roberta": other_model("xlm-roberta", **_AFTER_PADDING, type_vocab_size=1),
    "camembert": other_model("camembert", **_AFTER_PADDING, type_vocab_size=1),
    "electra": other_model("electra", embedding_size=16),
    "electra of one width": other_model("electra", embedding_size=WIDTH),
    "mpnet": other_model("mpnet", **_AFTER_PADDING),
    "deberta-v2": other_model("deberta-v2", **_RELATIVE),
    "deberta-v3": other_model("deberta-v2", **_RELATIVE, legacy=False),
    "deberta of its own keys": other_model("deberta-v2", **(_RELATIVE | {"share_att_key": False, "type_vocab_size": 2}), legacy=False),
    "deberta with positions": other_model("deberta-v2", **(_RELATIVE | {"position_biased_input": True})),
    "deberta with a convolution": other_model("deberta-v2", **_RELATIVE, conv_kernel_size=3, conv_act="gelu"),
    "modernbert": other_model("modernbert", **_SMALL_IDS, local_attention=6, attention_dropout=0.1),
    "modernbert with biases": other_model(
        "modernbert", **_SMALL_IDS, norm_bias=True, mlp_bias=True, attention_bias=True, classifier_bias=True
    ),
    "albert": other_model("albert", embedding_size=16),
}


@pytest.fixture
def make_model() -> Callable[..., PreTrainedModel]:
    """make_model(family, seed=1, layers=4, **config): a tiny Hugging Face MLM model in eval mode."""
    return lambda family, *arguments, **overrides: MODELS[family](*arguments, **overrides)


@pytest.fixture
def tiny_bert() -> Encoder:
    return Encoder(bert_model())


@pytest.fixture
def tiny_distilbert() -> Encoder:
    return Encoder(distilbert_model())


@pytest.fixture
def tiny_roberta() -> Encoder:
    return Encoder(roberta_model())


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[PreTrainedModel], str]:
    """saved(model): a folder of its own that holds the model."""

    def save(model: PreTrainedModel) -> str:
        folder = tmp_path / f"model-{len(list(tmp_path.glob('model-*')))}"
        with quiet_transformers():
            model.save_pretrained(folder)
        return str(folder)

    return save


def pack(rows: list[list[list[int]]], columns: int, predicted_every: int = 3) -> Batch:
    """Rows of documents (lists of ids) side by side, padded with id 0 to `columns`; every third real position is predicted."""
    shape = (len(rows), columns)
    input_ids, positions, segments = (torch.zeros(shape, dtype=torch.int64) for _ in range(3))
    labels = torch.full(shape, IGNORED)
    for row, documents in enumerate(rows):
        start = 0
        for number, document in enumerate(documents, start=1):
            end = start + len(document)
            input_ids[row, start:end] = torch.tensor(document)
            positions[row, start:end] = torch.arange(len(document))
            segments[row, start:end] = number
            start = end
        labels[row, :start:predicted_every] = (input_ids[row, :start:predicted_every] * 7 + 3) % VOCABULARY
    return Batch(input_ids, labels, positions, segments, windows=torch.arange(len(rows)))


@pytest.fixture
def tiny_batch() -> Batch:
    """2 rows of 24: three documents that fill the first, two and a tail of 7 padded positions in the second."""
    ids = torch.Generator().manual_seed(3)
    documents = [torch.randint(5, VOCABULARY, (n,), generator=ids).tolist() for n in (9, 10, 5, 11, 6)]
    return pack([documents[:3], documents[3:]], columns=24)
