"""Every term against tests/golden/terms.json (float64, written from the papers), finite differences, and what must not change it."""

import importlib.util
import json
import math
from pathlib import Path
from types import ModuleType

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from kd.terms import HiddenCosine, LogitMSE, MaskedLM, SoftTargets, Term
from kd.terms.views import LogitView, TokenView

GOLDEN_FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = json.loads((GOLDEN_FOLDER / "terms.json").read_text())
STUDENT, TEACHER = torch.tensor(GOLDEN["student"]), torch.tensor(GOLDEN["teacher"])
LABELS = torch.tensor(GOLDEN["labels"])


@pytest.fixture(scope="module")
def formulas() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_terms", GOLDEN_FOLDER / "terms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def on_logits(student: Tensor, teacher: Tensor | None = TEACHER, labels: Tensor = LABELS) -> LogitView:
    return LogitView(student, teacher, labels)


def on_hidden(student: Tensor, teacher: Tensor) -> TokenView:
    return TokenView(((student, teacher),))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 20.0])
def test_soft_targets_are_the_papers(temperature: float) -> None:
    values = SoftTargets(temperature=temperature)(on_logits(STUDENT))
    assert values.dtype == torch.float32
    torch.testing.assert_close(
        values.double(), torch.tensor(GOLDEN["soft_targets"][str(temperature)]).double(), rtol=1e-5, atol=temperature**2 * 3e-7
    )


def test_mlm_is_the_papers_and_zero_where_nothing_is_predicted() -> None:
    values = MaskedLM()(on_logits(STUDENT, None))
    torch.testing.assert_close(values.double(), torch.tensor(GOLDEN["mlm"]).double(), rtol=1e-6, atol=1e-6)
    assert values[1] == 0
    assert values[4] == 0


def test_cosine_is_the_papers() -> None:
    values = HiddenCosine()(on_hidden(STUDENT, TEACHER))
    torch.testing.assert_close(values.double(), torch.tensor(GOLDEN["cosine"]).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 8.0])
def test_soft_targets_gradient_is_the_finite_difference(formulas: ModuleType, temperature: float) -> None:
    student = STUDENT.clone().requires_grad_()
    SoftTargets(temperature=temperature)(on_logits(student)).sum().backward()
    assert_gradient(student, lambda row, values: formulas.soft_targets(values, GOLDEN["teacher"][row], temperature))


def test_mlm_gradient_is_the_finite_difference(formulas: ModuleType) -> None:
    student = STUDENT.clone().requires_grad_()
    MaskedLM()(on_logits(student, None)).sum().backward()
    assert_gradient(student, lambda row, values: 0.0 if GOLDEN["labels"][row] < 0 else formulas.mlm(values, GOLDEN["labels"][row]))


def test_cosine_gradient_is_the_finite_difference(formulas: ModuleType) -> None:
    student = STUDENT.clone().requires_grad_()
    HiddenCosine()(on_hidden(student, TEACHER)).sum().backward()
    assert_gradient(student, lambda row, values: formulas.cosine(values, GOLDEN["teacher"][row]))


def assert_gradient(student: Tensor, value) -> None:
    """Central differences of an independent float64 formula, step 1e-5 (error about 1e-10), against autograd in fp32."""
    step = 1e-5
    for row, numbers in enumerate(GOLDEN["student"]):
        for column in range(len(numbers)):
            up, down = list(numbers), list(numbers)
            up[column] += step
            down[column] -= step
            expected = (value(row, up) - value(row, down)) / (2 * step)
            assert float(student.grad[row, column]) == pytest.approx(expected, rel=2e-4, abs=2e-6)


def test_soft_targets_and_cosine_are_zero_when_student_equals_teacher() -> None:
    assert float(SoftTargets()(on_logits(TEACHER)).abs().max()) < 1e-6
    assert float(HiddenCosine()(on_hidden(TEACHER, TEACHER)).abs().max()) < 1e-6


def test_soft_targets_gradient_keeps_its_scale_in_temperature_and_vocabulary() -> None:
    """Hinton et al. 2015, section 2.1: at high T the gradient of T^2 KL is (student - teacher logits) / V whatever T is.

    An average over V instead of a sum would shrink it by V once more.
    """
    generator = torch.Generator().manual_seed(3)

    def gradient(temperature: float, vocabulary: int) -> Tensor:
        student = torch.randn(4, vocabulary, generator=generator).requires_grad_()
        teacher = torch.randn(4, vocabulary, generator=generator)
        SoftTargets(temperature=temperature)(on_logits(student, teacher)).sum().backward()
        centred = (student - teacher) - (student - teacher).mean(-1, keepdim=True)
        return student.grad.norm() * vocabulary / centred.detach().norm()

    for temperature in (50.0, 200.0):
        for vocabulary in (10, 1000):
            assert float(gradient(temperature, vocabulary)) == pytest.approx(1.0, rel=0.05)


def test_half_precision_logits_are_lifted_before_the_softmax() -> None:
    half = SoftTargets()(on_logits(STUDENT.bfloat16(), TEACHER.bfloat16()))
    full = SoftTargets()(on_logits(STUDENT.bfloat16().float(), TEACHER.bfloat16().float()))
    assert half.dtype == torch.float32
    assert torch.equal(half, full)


def test_one_token_is_enough() -> None:
    assert SoftTargets()(on_logits(STUDENT[:1], TEACHER[:1], LABELS[:1])).shape == (1,)
    assert SoftTargets()(on_logits(STUDENT[:0], TEACHER[:0], LABELS[:0])).shape == (0,)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "soft_targets", "temperature": 0},
        {"kind": "mlm", "weight": -1},
        {"kind": "cosine", "temperature": 2},
        {"kind": "soft_targets", "top_k": 0},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Term).validate_python(wrong)


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("temperature", [0.5, 2.0, 20.0])
@pytest.mark.parametrize("divergence", ["forward", "reverse", "symmetric", "jensen_shannon"])
def test_divergences_are_the_papers_with_every_token_or_with_the_tail_as_one(
    divergence: str, temperature: float, top_k: int | None
) -> None:
    values = SoftTargets(divergence=divergence, temperature=temperature, top_k=top_k)(on_logits(STUDENT))
    expected = torch.tensor(GOLDEN[divergence if top_k is None else f"{divergence} top 3"][str(temperature)])
    torch.testing.assert_close(values, expected, rtol=2e-5, atol=temperature**2 * 3e-7)


@pytest.mark.parametrize("top_k", [None, 3])
@pytest.mark.parametrize("divergence", ["reverse", "symmetric", "jensen_shannon", "forward"])
def test_gradients_of_divergences_are_the_finite_differences(formulas: ModuleType, divergence: str, top_k: int | None) -> None:
    student = STUDENT.clone().requires_grad_()
    SoftTargets(divergence=divergence, top_k=top_k)(on_logits(student)).sum().backward()
    assert_gradient(student, lambda row, values: formulas.divergence(values, GOLDEN["teacher"][row], 2.0, divergence, top_k))


def test_alpha_mixes_hard_labels_and_softened_ones_as_hinton_does() -> None:
    values = SoftTargets(alpha=0.3, positions="masked")(on_logits(STUDENT))
    labelled = LABELS >= 0
    torch.testing.assert_close(values[labelled], torch.tensor(GOLDEN["alpha"])[labelled], rtol=1e-5, atol=1e-6)


def test_the_tail_keeps_the_mass_that_a_cut_would_hide() -> None:
    """The student puts a tenth on tokens outside the teacher's first two, the teacher next to nothing: renormalised, both look alike."""
    teacher, student = (torch.tensor([p]).log() for p in ([0.6, 0.4 - 1e-6, 1e-6], [0.54, 0.36, 0.1]))
    assert float(SoftTargets(temperature=1, top_k=2)(on_logits(student, teacher))) == pytest.approx(-math.log(0.9), rel=1e-3)
    every = SoftTargets(temperature=1)(on_logits(student, teacher))
    assert torch.equal(SoftTargets(temperature=1, top_k=3)(on_logits(student, teacher)), every)


@pytest.mark.parametrize("divergence", ["reverse", "symmetric", "jensen_shannon", "forward"])
def test_a_tail_too_small_for_one_minus_the_rest_is_still_the_formulas(formulas: ModuleType, divergence: str) -> None:
    """Tails of 1e-9 and 1e-8, which fp32 cannot tell from 0 beside 1: a reverse KL weighs their logarithms."""
    student, teacher = [20.0, 1.0, 0.5, -1.0, 0.0], [-1.0, 0.0, 19.0, 0.3, 1.0]
    leaf = torch.tensor([student]).requires_grad_()
    value = SoftTargets(divergence=divergence, temperature=1, top_k=2)(on_logits(leaf, torch.tensor([teacher])))
    value.sum().backward()
    step = 1e-4
    slopes = [
        sum(
            sign * formulas.divergence([s + sign * step * (i == j) for j, s in enumerate(student)], teacher, 1.0, divergence, 2)
            for sign in (1, -1)
        )
        / (2 * step)
        for i in range(len(student))
    ]
    assert float(value.detach()) == pytest.approx(formulas.divergence(student, teacher, 1.0, divergence, 2), rel=1e-5)
    torch.testing.assert_close(leaf.grad[0], torch.tensor(slopes), rtol=1e-3, atol=1e-6)


def test_logit_mse_is_half_the_squared_distance_and_each_logits_gradient_its_difference() -> None:
    student = STUDENT.clone().requires_grad_()
    values = LogitMSE()(on_logits(student))
    torch.testing.assert_close(values, torch.tensor(GOLDEN["half_squares"]), rtol=1e-6, atol=1e-6)
    values.sum().backward()
    torch.testing.assert_close(student.grad, STUDENT - TEACHER)
