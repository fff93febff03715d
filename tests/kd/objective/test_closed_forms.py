"""The closed forms of the logit terms against float64 autograd of their formulas, and the head with them against the head without."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from kd.models.outputs import Decoder, EncoderOutputs
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.objective.vocabulary_head import chunked_terms
from kd.terms.logit_tile import LogitTile, Scratch
from kd.terms.logits import LogitMSE, MaskedLM, SoftTargets
from kd.terms.views import LogitView

DIVERGENCES = ("forward", "reverse", "symmetric", "jensen_shannon")


def formula(term, student, teacher, labels):
    """The term's numbers in float64, with autograd."""
    hard = F.cross_entropy(student, labels, reduction="none", ignore_index=-100)
    if isinstance(term, MaskedLM):
        return hard
    if isinstance(term, LogitMSE):
        return 0.5 * (student - teacher).square().sum(-1)
    log_q, log_p = (F.log_softmax(values / term.temperature, -1) for values in (student, teacher))
    q, p = log_q.exp(), log_p.exp()
    log_m = (0.5 * (p + q)).log()
    soft = {
        "forward": (p * (log_p - log_q)).sum(-1),
        "reverse": (q * (log_q - log_p)).sum(-1),
        "symmetric": 0.5 * ((p - q) * (log_p - log_q)).sum(-1),
        "jensen_shannon": 0.5 * (p * (log_p - log_m)).sum(-1) + 0.5 * (q * (log_q - log_m)).sum(-1),
    }[term.divergence]
    return term.alpha * hard + (1 - term.alpha) * term.temperature**2 * soft


def closed_form(term, view):
    """(the term's numbers [n], their gradient [n, V])"""
    tile = LogitTile(view.student_logits, view.labels, Scratch(*view.student_logits.shape))
    values = term.closed_form(view, tile, torch.ones(len(view.labels)))
    return values, tile.gradient()


TERMS = [
    MaskedLM(),
    LogitMSE(),
    *(SoftTargets(divergence=d, temperature=t, alpha=a) for d, t, a in itertools.product(DIVERGENCES, (0.5, 1.0, 2.0, 20.0), (0.0, 0.3))),
]


@pytest.mark.parametrize("size", [0.1, 1.0, 10.0])
@pytest.mark.parametrize("vocabulary", [2, 7, 1003])
@pytest.mark.parametrize("term", TERMS, ids=repr)
def test_a_closed_form_is_the_gradient_of_its_formula(term, vocabulary, size):
    generator = torch.Generator().manual_seed(1)
    student, teacher = (torch.randn(9, vocabulary, generator=generator) * size for _ in range(2))
    labels = torch.tensor([0, 1, -100, 1, 0, -100, 1, 0, 1])
    before = student.clone(), teacher.clone()
    values, gradient = closed_form(term, LogitView(student, teacher, labels))
    assert torch.equal(student, before[0]), "the head hands the same logits to the next term"
    assert torch.equal(teacher, before[1])
    exact = student.double().requires_grad_()
    expected = formula(term, exact, teacher.double(), labels)
    (slope,) = torch.autograd.grad(expected.sum(), exact)
    unit = max(1.0, getattr(term, "temperature", 1.0) ** 2)  # a small divergence times T^2: its rounding grows alike
    close = {"rtol": 2e-5, "atol": 1e-6 * unit * max(1.0, float(expected.detach().abs().max()))}
    torch.testing.assert_close(values.double(), expected.detach(), **close)
    torch.testing.assert_close(values, term(LogitView(student, teacher, labels)), **close)
    torch.testing.assert_close(gradient.double(), slope, rtol=1e-4, atol=1e-5 * max(1.0, float(slope.abs().max())))


@pytest.mark.parametrize("term", TERMS[:2] + [SoftTargets(divergence=d) for d in DIVERGENCES], ids=lambda term: term.kind)
def test_logits_of_thousands_give_finite_gradients(term):
    student, teacher = torch.tensor([[3e4, -3e4, 0.0]]), torch.tensor([[-3e4, 3e4, 0.0]])
    values, gradient = closed_form(term, LogitView(student, teacher, torch.tensor([1])))
    assert torch.isfinite(values).all()
    assert torch.isfinite(gradient).all()


def test_terms_without_a_closed_form_say_so():
    view = LogitView(torch.zeros(1, 3), torch.zeros(1, 3), torch.zeros(1))
    assert not SoftTargets(alpha=0.5).has_closed_form(view), "labels are numbers"


@pytest.mark.parametrize("chunk", [1, 5, 64])
@pytest.mark.parametrize("looked", ["all", "some", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_head_gives_the_same_with_and_without_closed_forms(monkeypatch, chunk, looked, dtype):
    generator = torch.Generator().manual_seed(2)
    tokens, width, vocabulary = 23, 8, 31
    weight, other = (torch.randn(vocabulary + 2, width, generator=generator).to(dtype) for _ in range(2))
    bias = torch.randn(vocabulary + 2, generator=generator).to(dtype)
    states, theirs = (torch.randn(tokens, width, generator=generator).to(dtype) for _ in range(2))
    labels = torch.randint(0, vocabulary, (tokens,), generator=generator)
    labels[::3] = -100
    places = {"all": torch.ones(tokens), "some": (torch.arange(tokens) % 3 == 1).float(), "none": torch.zeros(tokens)}[looked]
    terms = [SoftTargets(), MaskedLM(), LogitMSE(), SoftTargets(divergence="reverse", positions="masked", alpha=0.4)]
    scales = torch.stack([torch.full((tokens,), 0.5), places * 0.25, torch.full((tokens,), 0.01), places * 0.125])
    teachers = TeacherOutputs({0: EncoderOutputs(theirs, {}, transformed=theirs, decoder=Decoder(other, bias, vocabulary))})
    requests = [LogitRequest(0), None, LogitRequest(0), LogitRequest(0)]

    def run():
        leaves = [tensor.clone().requires_grad_() for tensor in (states, weight, bias)]
        loss, sums = chunked_terms((leaves[0], Decoder(leaves[1], leaves[2], vocabulary)), teachers, labels, terms, requests, scales, chunk)
        loss.backward()
        return [loss.detach(), sums, *(leaf.grad for leaf in leaves)]

    fast = run()
    for kind in (SoftTargets, MaskedLM, LogitMSE):
        monkeypatch.setattr(kind, "has_closed_form", lambda self, view: False)
    plain = run()
    tolerance = {"rtol": 2e-5, "atol": 2e-6} if dtype == torch.float32 else {"rtol": 2e-2, "atol": 2e-2}
    for one, expected in zip(fast, plain, strict=True):
        torch.testing.assert_close(one, expected, **tolerance)
