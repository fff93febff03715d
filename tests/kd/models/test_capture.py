"""What a forward pass keeps: the tensors that transformers would return, no more than asked for, also when computed twice."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from kd.batch import Batch
from kd.models.capture import capture
from kd.models.encoder import Encoder
from kd.models.states import StateKey

pytestmark = pytest.mark.slow

FAMILIES = ["bert", "distilbert", "roberta"]
CHECKPOINTING = [*FAMILIES, "electra", "modernbert"]
WITHOUT_DROPOUT = {"modernbert": {"attention_dropout": 0.0}}
EVERY_FAMILY = [*CHECKPOINTING, "mpnet", "deberta-v2", "deberta-v3", "albert"]
EVERYTHING = frozenset(
    [StateKey("embeddings", 0)] + [StateKey(part, layer) for part in ("hidden", "queries", "keys", "values") for layer in range(4)]
)


@pytest.mark.parametrize("family", [*FAMILIES, "electra", "albert"])
def test_hidden_states_and_embeddings_are_those_of_transformers(make_model, tiny_batch: Batch, family: str) -> None:
    encoder = Encoder(make_model(family))
    kept = capture(encoder, tiny_batch, EVERYTHING)
    assert len({float(state.detach().double().sum()) for state in kept.states.values()}) == len(
        EVERYTHING
    )  # no two layers or parts are mixed up
    expected = encoder.hf(
        input_ids=tiny_batch.input_ids,
        attention_mask=tiny_batch.attention,
        position_ids=tiny_batch.positions + encoder.position_offset,
        output_hidden_states=True,
    ).hidden_states
    assert torch.equal(kept.states[StateKey("embeddings", 0)], expected[0])
    for layer in range(4):
        assert torch.equal(kept.states[StateKey("hidden", layer)], expected[layer + 1])
    assert kept.states[StateKey("hidden", 3)] is kept.last_hidden


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_first_hidden_state_of_deberta_with_a_convolution_is_the_input_of_the_second_layer(
    make_model, tiny_batch: Batch, checkpointing: bool
) -> None:
    model = make_model("deberta with a convolution", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    encoder = Encoder(model)
    alone = replace(tiny_batch, segments=(tiny_batch.segments > 0).long())
    expected = model.deberta.encoder(
        model.deberta.embeddings(alone.input_ids, position_ids=alone.positions, mask=alone.real.long()), alone.real.long()
    ).hidden_states
    if checkpointing:
        encoder.train()
        encoder.checkpoint_activations(use_reentrant=False)
    states = capture(encoder, alone, frozenset(StateKey("hidden", layer) for layer in range(4))).states
    for layer in range(4):
        torch.testing.assert_close(states[StateKey("hidden", layer)], expected[layer + 1])


@pytest.mark.parametrize("family", FAMILIES)
def test_queries_and_keys_give_the_attention_that_transformers_computes(make_model, tiny_batch: Batch, family: str) -> None:
    model = make_model(family)
    model.set_attn_implementation("eager")
    encoder = Encoder(model)
    states = capture(encoder, tiny_batch, EVERYTHING).states
    mask = torch.zeros(tiny_batch.attention.shape).masked_fill(~tiny_batch.attention, torch.finfo(torch.float32).min)
    positions = tiny_batch.positions + encoder.position_offset
    found = model(input_ids=tiny_batch.input_ids, attention_mask=mask, position_ids=positions, output_attentions=True).attentions
    for layer in range(4):
        query, key = (states[StateKey(part, layer)].unflatten(-1, (4, 8)).transpose(1, 2) for part in ("queries", "keys"))
        scores = (query @ key.mT / 8**0.5).masked_fill(~tiny_batch.attention, float("-inf"))
        torch.testing.assert_close(scores.softmax(-1), found[layer], rtol=1e-4, atol=1e-6)


def test_one_matrix_for_queries_keys_and_values_is_cut_in_three(make_model, tiny_batch: Batch) -> None:
    encoder = Encoder(make_model("modernbert"))
    states = capture(encoder, tiny_batch, EVERYTHING).states
    layer = encoder.layer_modules[2]
    parts = layer.attn.Wqkv(layer.attn_norm(states[StateKey("hidden", 1)])).split(32, dim=-1)
    for part, expected in zip(("queries", "keys", "values"), parts, strict=True):
        torch.testing.assert_close(states[StateKey(part, 2)], expected)


@pytest.mark.parametrize("family", EVERY_FAMILY)
def test_every_family_gives_every_state_of_every_layer(make_model, tiny_batch: Batch, family: str) -> None:
    encoder = Encoder(make_model(family))
    states = capture(encoder, tiny_batch, EVERYTHING).states
    assert {state.shape for state in states.values()} == {(2, 24, 32)}


def test_what_was_not_asked_for_is_not_kept_and_no_hook_stays(tiny_bert: Encoder, tiny_batch: Batch) -> None:
    assert capture(tiny_bert, tiny_batch, frozenset()).states == {}
    assert set(capture(tiny_bert, tiny_batch, frozenset({StateKey("keys", -2)})).states) == {StateKey("keys", -2)}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in tiny_bert.modules())


def test_layers_count_from_the_end_where_negative(tiny_bert: Encoder, tiny_batch: Batch) -> None:
    states = capture(
        tiny_bert, tiny_batch, frozenset({StateKey("values", -1), StateKey("values", 3), StateKey("hidden", -4), StateKey("hidden", 0)})
    ).states
    assert torch.equal(states[StateKey("values", -1)], states[StateKey("values", 3)])
    assert torch.equal(states[StateKey("hidden", -4)], states[StateKey("hidden", 0)])


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("family", CHECKPOINTING)
def test_activation_checkpointing_changes_neither_states_nor_gradients(make_model, tiny_batch: Batch, family: str, reentrant: bool) -> None:
    """The loss reads every state: with reentrant checkpoints a layer's inside has no gradient unless it is handed out."""

    def run(checkpointing: bool) -> tuple[dict[StateKey, Tensor], dict[str, Tensor]]:
        encoder = Encoder(make_model(family, **WITHOUT_DROPOUT.get(family, {}))).train()
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        encoder.hf.config.attention_dropout = 0.0
        if checkpointing:
            encoder.hf.activation_checkpointing_enable({"use_reentrant": reentrant})
        kept = capture(encoder, tiny_batch, EVERYTHING)
        sum((state * torch.linspace(-1, 1, state.numel()).reshape(state.shape)).sum() for state in kept.states.values()).backward()
        return kept.states, {name: weight.grad for name, weight in encoder.named_parameters() if weight.grad is not None}

    (plain, gradients), (states, again) = run(False), run(True)
    for state in EVERYTHING:
        torch.testing.assert_close(states[state], plain[state])
    assert again.keys() == gradients.keys()
    for name, gradient in gradients.items():
        torch.testing.assert_close(again[name], gradient, rtol=1e-3, atol=1e-4)
