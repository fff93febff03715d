"""The chunked head against whole logits in float64: values and gradients, any chunk, padded vocabularies, both precisions."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kd.models.outputs import Decoder, EncoderOutputs
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.objective.vocabulary_head import chunked_terms
from kd.terms import MaskedLM, SoftTargets
from kd.terms.base import LogitTerm
from kd.terms.views import LogitView

TOKENS, WIDTH, VOCABULARY, PADDED = 13, 8, 29, 32
TERMS = [SoftTargets(temperature=2.0, weight=5.0), MaskedLM(weight=2.0)]


def inputs(dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(11)

    def draw(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator).to(dtype)

    labels = torch.randint(0, VOCABULARY, (TOKENS,), generator=generator)
    labels[::3] = -100
    scales = torch.stack([torch.full((TOKENS,), 5.0 / TOKENS), (labels >= 0).float() * 2.0 / float((labels >= 0).sum())])
    return {
        "z": draw(TOKENS, WIDTH),
        "w": draw(PADDED, WIDTH),
        "b": draw(PADDED),
        "tz": draw(TOKENS, 6),
        "tw": draw(PADDED, 6),
        "tb": draw(PADDED),
        "labels": labels,
        "scales": scales,
    }


def plain(values: dict[str, Tensor]) -> tuple[Tensor, list[Tensor], list[float]]:
    """The same objective from whole float64 logits: (loss, gradients of z, w, b, sums)."""
    z, w, b = (values[name].double().requires_grad_() for name in ("z", "w", "b"))
    logits = F.linear(z, w[:VOCABULARY], b[:VOCABULARY])
    teacher = F.linear(values["tz"].double(), values["tw"][:VOCABULARY].double(), values["tb"][:VOCABULARY].double())
    p = F.softmax(teacher / 2, -1)
    soft = 4 * (p * (p.log() - F.log_softmax(logits / 2, -1))).sum(-1)
    at = values["labels"] >= 0
    hard = torch.zeros(TOKENS, dtype=torch.float64)
    hard[at] = -F.log_softmax(logits, -1)[at, values["labels"][at]]
    loss = (values["scales"][0].double() * soft + values["scales"][1].double() * hard).sum()
    sums = [float(soft.detach().sum()), float(hard.detach().sum())]
    return loss.detach(), list(torch.autograd.grad(loss, (z, w, b))), sums


def chunked(values: dict[str, Tensor], chunk: int, trainable: str = "zwb") -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    leaves = {name: values[name].clone().requires_grad_(name in trainable) for name in ("z", "w", "b")}
    student = (leaves["z"], Decoder(leaves["w"], leaves["b"], VOCABULARY))
    teachers = TeacherOutputs({0: EncoderOutputs(values["tz"], {}, values["tz"], Decoder(values["tw"], values["tb"], VOCABULARY))})
    requests = [LogitRequest(0) if term.required_outputs else None for term in TERMS]
    loss, sums = chunked_terms(student, teachers, values["labels"], TERMS, requests, values["scales"], chunk)
    if trainable:
        (3 * loss).backward()
    return loss.detach(), sums, {name: leaf.grad for name, leaf in leaves.items()}


@pytest.mark.parametrize("chunk", [1, 4, 5, TOKENS, 100])
def test_any_chunk_gives_the_values_and_gradients_of_whole_logits(chunk: int) -> None:
    expected_loss, expected_gradients, expected_sums = plain(inputs())
    loss, sums, gradients = chunked(inputs(), chunk)
    assert float(loss) == pytest.approx(float(expected_loss), rel=1e-5)
    assert sums.tolist() == pytest.approx(expected_sums, rel=1e-5)
    for name, expected in zip("zwb", expected_gradients, strict=True):
        torch.testing.assert_close(gradients[name].double(), 3 * expected, rtol=1e-4, atol=1e-5)


def test_bf16_weights_keep_what_later_chunks_add() -> None:
    """bf16 holds 8 bits: the chunks' weight gradients are summed in fp32, so many chunks are as good as one."""
    _, expected, _ = plain(inputs(torch.bfloat16))
    for chunk in (1, TOKENS):
        _, _, gradients = chunked(inputs(torch.bfloat16), chunk)
        error = (gradients["w"].double() - 3 * expected[1]).norm() / (3 * expected[1]).norm()
        assert float(error) < 0.01


def test_rows_added_to_the_vocabulary_change_nothing_and_get_no_gradient() -> None:
    values = inputs()
    _, _, before = chunked(values, 4)
    for name in ("w", "b", "tw", "tb"):
        values[name][VOCABULARY:] = float("inf")
    loss, _, after = chunked(values, 4)
    assert torch.isfinite(loss)
    assert torch.equal(before["z"], after["z"])
    assert after["w"][VOCABULARY:].abs().max() == 0
    assert after["b"][VOCABULARY:].abs().max() == 0


@pytest.mark.parametrize("trainable", ["z", "b", "wb", "zb", ""])
def test_frozen_parts_get_no_gradient_and_the_others_the_same(trainable: str) -> None:
    _, _, everything = chunked(inputs(), 4)
    _, _, some = chunked(inputs(), 4, trainable)
    for name in "zwb":
        if name in trainable:
            assert torch.equal(some[name], everything[name])
        else:
            assert some[name] is None


def test_no_selected_token_is_a_loss_of_zero_with_zero_gradients() -> None:
    values = inputs()
    values |= {name: values[name][:0] for name in ("z", "tz", "labels")} | {"scales": values["scales"][:, :0]}
    loss, sums, gradients = chunked(values, 4)
    assert float(loss) == 0
    assert sums.tolist() == [0, 0]
    assert float(gradients["w"].abs().max()) == 0


class Sum(LogitTerm):
    """The sum of a token's logits: each has the same gradient, which autograd gives as one number seen V times."""

    kind: str = "sum"

    def __call__(self, view: LogitView) -> Tensor:
        return view.student_logits.sum(-1)


def test_a_gradient_that_is_one_number_seen_often_can_be_added_to() -> None:
    z, decoder = torch.ones(3, WIDTH, requires_grad=True), Decoder(torch.ones(VOCABULARY, WIDTH), torch.zeros(VOCABULARY), VOCABULARY)
    labels, scales = torch.zeros(3, dtype=torch.int64), torch.ones(2, 3)
    loss, _ = chunked_terms((z, decoder), TeacherOutputs({}), labels, [Sum(), Sum()], [None, None], scales, 2)
    loss.backward()
    assert torch.equal(z.grad, torch.full((3, WIDTH), 2.0 * VOCABULARY))
