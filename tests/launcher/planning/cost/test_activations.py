"""Counted activations against the closed form, and against what autograd keeps in a real forward pass."""

import pytest
import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from transformers import BertConfig, DebertaV2Config, DistilBertConfig, ModernBertConfig, PreTrainedConfig

from kd.batch import Batch
from kd.models.encoder import Encoder
from kd.models.loading import untrained
from launcher.planning.cost.activations import closed_form, count_activations

S = 128
BERT = {"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 256}
STILL = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2}
RELATIVE = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16}
CONFIGS = {
    "bert": BertConfig(**BERT, **STILL),
    "bert with dropout": BertConfig(**BERT),
    "distilbert": DistilBertConfig(vocab_size=100, dim=64, n_layers=3, n_heads=4, hidden_dim=256, dropout=0.0, attention_dropout=0.0),
    "modernbert": ModernBertConfig(**(BERT | {"intermediate_size": 96}), **SPECIAL),
    "deberta": DebertaV2Config(**BERT, **STILL, **RELATIVE),
}


def meta(config: PreTrainedConfig, kernel: str) -> Encoder:
    with torch.device("meta"):
        return untrained(config, kernel).train()


def really_kept(config: PreTrainedConfig, kernel: str, dtype: torch.dtype) -> int:
    """Bytes that autograd keeps of one real window, weights left out, each storage once."""
    encoder = untrained(config, kernel).to(dtype).train()
    weights = {weight.untyped_storage()._cdata for weight in encoder.parameters()}
    kept: dict[int, Tensor] = {}

    def pack(tensor: Tensor) -> Tensor:
        key = tensor.untyped_storage()._cdata
        if key not in weights:
            kept.setdefault(key, tensor)
        return tensor

    ids = torch.ones(1, S, dtype=torch.int64)
    with saved_tensors_hooks(pack, lambda tensor: tensor):
        encoder(Batch(ids, ids * 0 - 100, torch.arange(S)[None], torch.ones_like(ids), ids[:, 0]))
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("name", CONFIGS)
def test_counted_activations_are_those_of_a_real_forward_pass(name: str, kernel: str):
    config = CONFIGS[name]
    counted = count_activations(meta(config, kernel), kernel, S, "fp32")
    assert counted.exact
    # ModernBERT's layers differ in their norms, and the largest stands for all
    assert counted.kept == pytest.approx(really_kept(config, kernel, torch.float32), rel=0.03 if name == "modernbert" else 0.0)


@pytest.mark.parametrize("kernel", ["eager", "sdpa"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_closed_form_agrees_with_the_count(kernel: str, precision: str):
    counted = count_activations(meta(CONFIGS["bert"], kernel), kernel, S, precision)
    formula = closed_form(3, 64, 256, 4, S, kernel, precision)
    # the meta device keeps LayerNorm's means in fp32 in bf16 too, as a GPU does
    assert counted.layer == pytest.approx(formula.layer, rel=0.01)
    assert counted.kept == pytest.approx(formula.kept, rel=0.01)


def test_checkpointing_keeps_the_input_of_each_layer_and_one_layer():
    counted = count_activations(meta(CONFIGS["bert"], "sdpa"), "sdpa", S, "fp32")
    assert counted.bytes(checkpointing=True) == 3 * S * 4 * 64 + counted.layer + counted.outside
    assert counted.bytes(checkpointing=True) < counted.bytes(checkpointing=False)


def test_a_kernel_that_is_not_known_counts_as_sdpa():
    bert = meta(CONFIGS["bert"], "sdpa")
    assert count_activations(bert, "another", S, "fp32") == count_activations(bert, "sdpa", S, "fp32")


def test_attention_by_document_keeps_no_more_than_plain_products_do():
    bert = meta(CONFIGS["bert"], "sdpa")
    sdpa, documents, eager = (count_activations(bert, kernel, S, "fp32").kept for kernel in ("sdpa", "documents", "eager"))
    assert sdpa < documents <= eager
