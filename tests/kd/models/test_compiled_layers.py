"""Compiled layers: states and gradients are the plain ones to rounding, hooks see the same, and what cannot be compiled is said."""

import os
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch._dynamo.utils import counters

from kd.batch import Batch
from kd.errors import KdError
from kd.models.capture import capture
from kd.models.compiled_layers import compile_layers, plain_layers
from kd.models.encoder import Encoder
from kd.models.states import EncoderShape, StateKey
from kd.objective.objective import Objective
from kd.teacher.settings import Mixing
from kd.teacher.teacher import FrozenEncoder, ReplicatedTeacher
from kd.teacher.teachers import Teachers, fit_objective
from kd.terms import AttentionKL
from tests.kd.conftest import MODELS

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # torch's compiler causes some, and hides them

LAYERS = 3
OUTSIDE = frozenset([StateKey("embeddings", 0), *(StateKey("hidden", layer) for layer in range(LAYERS))])
INSIDE = frozenset([StateKey("queries", 1), StateKey("values", 1)])
CUT = ("input_ids", "labels", "positions", "segments")


@pytest.fixture(autouse=True)
def nothing_compiled() -> None:
    torch._dynamo.reset()


def passed(encoder: Encoder, batch: Batch, states: frozenset[StateKey]) -> dict[str, Tensor]:
    """States and gradients of one pass."""
    encoder.zero_grad()
    kept = capture(encoder, batch, states)
    found = {str(key): value for key, value in kept.states.items()} | {"last": kept.last_hidden}
    sum((value * torch.linspace(-1, 1, value.numel()).reshape(value.shape)).pow(3).sum() for value in found.values()).backward()
    found |= {name: weight.grad.clone() for name, weight in encoder.named_parameters() if weight.grad is not None}
    return {name: value.detach() for name, value in found.items()}


def expect_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    largest = max(value.abs().max() for value in one.values())
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-6 * largest.item(), msg=name)


def test_states_and_gradients_are_those_of_plain_layers(tiny_batch: Batch) -> None:
    encoder = Encoder(MODELS["bert"](layers=LAYERS))
    encoder.use_attention("documents")
    names = [name for name, _ in encoder.named_parameters()]
    plain = passed(encoder, tiny_batch, OUTSIDE)
    assert compile_layers(encoder, OUTSIDE, varying=False) == "3 of 3 layers"
    before = counters["stats"]["unique_graphs"]
    compiled = passed(encoder, tiny_batch, OUTSIDE)
    assert counters["stats"]["unique_graphs"] > before
    expect_same(plain, compiled)
    assert any(not torch.equal(plain[name], compiled[name]) for name in plain)  # other code did compute it
    assert [name for name, _ in encoder.named_parameters()] == names
    with plain_layers():
        assert all(torch.equal(value, plain[name]) for name, value in passed(encoder, tiny_batch, OUTSIDE).items())


def test_a_layer_whose_inside_is_read_stays_plain(tiny_bert: Encoder, tiny_batch: Batch) -> None:
    plain = passed(tiny_bert, tiny_batch, INSIDE)
    assert compile_layers(tiny_bert, INSIDE, varying=False) == "3 of 4 layers (terms read the inside of 1)"
    assert ["forward" in vars(layer) for layer in tiny_bert.layer_modules] == [True, False, True, True]
    expect_same(plain, passed(tiny_bert, tiny_batch, INSIDE))
    shared = Encoder(MODELS["albert"](layers=LAYERS))
    assert compile_layers(shared, INSIDE, varying=False) == "0 of 3 layers (terms read the inside of 1)"


@pytest.mark.parametrize(("mixing", "second"), [("random", "3 of 4 layers (terms read the inside of 1)"), ("mean", "4 of 4 layers")])
def test_layers_of_a_teacher_that_is_drawn_stay_plain_too(mixing: Mixing, second: str) -> None:
    members = [ReplicatedTeacher(FrozenEncoder(Encoder(MODELS["bert"](seed=seed)))) for seed in (1, 2)]
    teachers = Teachers(members, (1.0, 1.0), mixing)
    terms = [AttentionKL(layer_map="final", teacher=0 if mixing == "mean" else None)]
    objective = fit_objective(Objective(terms, 1), EncoderShape(2, 32, 4), teachers.shapes, mixing)
    said = teachers.compile_layers([objective], varying=False)
    assert said == ["teacher 0 3 of 4 layers (terms read the inside of 1)", f"teacher 1 {second}"]


def test_batches_of_many_shapes_run_one_code(tiny_bert: Encoder, tiny_batch: Batch) -> None:
    compile_layers(tiny_bert, OUTSIDE, varying=True)
    graphs = []
    for columns in (24, 16, 9, 21):
        part = replace(
            tiny_batch, **{name: getattr(tiny_batch, name)[:, :columns] for name in ("input_ids", "labels", "positions", "segments")}
        )
        with torch.no_grad():
            compiled = capture(tiny_bert, part, frozenset()).last_hidden
            with plain_layers():
                plain = capture(tiny_bert, part, frozenset()).last_hidden
        torch.testing.assert_close(compiled, plain, rtol=1e-4, atol=1e-5)
        graphs.append(counters["stats"]["unique_graphs"])
    assert len(set(graphs)) == 1


def test_a_compiler_that_is_missing_is_one_line(tiny_bert: Encoder, tiny_batch: Batch, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    compile_layers(tiny_bert, (), varying=False)
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", (str(tmp_path / "no-compiler"),))
    monkeypatch.setattr("torch._inductor.config.force_disable_caches", True)
    with pytest.raises(KdError, match=r"^train\.compile: expected torch\.compile to take a layer of bert, got .*; set it to false$"):
        capture(tiny_bert, tiny_batch, frozenset())


def test_a_folder_of_another_user_gives_no_code(tiny_bert: Encoder, monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    with pytest.raises(KdError, match=r": expected a folder of this user for compiled code, got one of user \d+; set TMPDIR"):
        compile_layers(tiny_bert, (), varying=False)
