"""The mixture of teachers against float64 sums of probabilities; who is drawn; who may teach what."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kd.errors import KdError
from kd.models.outputs import Decoder, EncoderOutputs
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.teacher.settings import MemberSettings, TeachersSettings, check_assignment
from kd.teacher.teachers import drawn, shares
from kd.terms import HiddenCosine, MaskedLM, SoftTargets
from kd.terms.views import LogitView

VOCABULARY, TOKENS = 31, 13


@pytest.fixture
def heads() -> TeacherOutputs:
    """Three teachers of different widths and confidence over one vocabulary, padded by 2 rows; weights 3 : 1 : 2."""
    draw = torch.Generator().manual_seed(2)
    made = {}
    for number, width in enumerate((8, 5, 11)):
        weight = torch.randn(VOCABULARY + 2, width, generator=draw) * 2 * (number + 1)
        decoder = Decoder(weight, torch.randn(VOCABULARY + 2, generator=draw), VOCABULARY)
        made[number] = EncoderOutputs(torch.empty(0), {}, torch.randn(TOKENS, width, generator=draw), decoder)
    return TeacherOutputs(made, shares([3, 1, 2]))


def whole_logits(heads: TeacherOutputs) -> list[Tensor]:
    """[N, V] float64 of each teacher."""
    parts = [(outputs.transformed, outputs.decoder) for outputs in heads.outputs.values()]
    return [z.double() @ d.weight[:VOCABULARY].double().T + d.bias[:VOCABULARY].double() for z, d in parts]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 20.0])
def test_the_mixture_is_the_weighted_mean_of_probabilities_at_the_terms_temperature(heads, temperature):
    expected = sum(w * F.softmax(z / temperature, -1) for w, z in zip((3 / 6, 1 / 6, 2 / 6), whole_logits(heads), strict=True))
    for start in range(0, TOKENS, 5):
        chunk = slice(start, start + 5)
        (logits,) = heads.logits([LogitRequest(None, temperature)], chunk)
        found = F.softmax(logits.double() / temperature, -1)
        torch.testing.assert_close(found, expected[chunk], rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.5, 2.0, 20.0])
def test_soft_targets_of_a_mixture_are_those_of_the_mean_distribution(heads, temperature):
    """T^2 KL(sum_k w_k softmax(z_k / T) || softmax(s / T)) in float64, from the definition."""
    student = torch.randn(TOKENS, VOCABULARY, generator=torch.Generator().manual_seed(9))
    p = sum(w * F.softmax(z / temperature, -1) for w, z in zip((3 / 6, 1 / 6, 2 / 6), whole_logits(heads), strict=True))
    expected = temperature**2 * (p * (p.log() - F.log_softmax(student.double() / temperature, -1))).sum(-1)
    (logits,) = heads.logits([LogitRequest(None, temperature)], slice(None))
    view = LogitView(student, logits, torch.zeros(TOKENS, dtype=torch.int64))
    torch.testing.assert_close(SoftTargets(temperature=temperature)(view).double(), expected, rtol=2e-5, atol=1e-5)


def test_each_term_gets_what_it_wants_and_one_teacher_is_its_own_logits(heads):
    first, nothing, mixed, softer, third = heads.logits(
        [LogitRequest(0), None, LogitRequest(None, 2.0), LogitRequest(None, 4.0), LogitRequest(2)], slice(0, 4)
    )
    assert nothing is None
    for found, expected in ((first, whole_logits(heads)[0]), (third, whole_logits(heads)[2])):
        torch.testing.assert_close(found.double(), expected[:4], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(mixed, softer)
    alone = TeacherOutputs({0: heads.outputs[0]}).logits([LogitRequest(None, 2.0)], slice(0, 4))[0]
    torch.testing.assert_close(F.softmax(alone / 2, -1), F.softmax(first / 2, -1))


def test_equal_teachers_mix_to_themselves(heads):
    same = TeacherOutputs({0: heads.outputs[1], 1: heads.outputs[1]}, (0.3, 0.7))
    (mixed,) = same.logits([LogitRequest(None, 3.0)], slice(None))
    torch.testing.assert_close(F.log_softmax(mixed / 3, -1), F.log_softmax(whole_logits(heads)[1].float() / 3, -1), rtol=1e-5, atol=1e-5)


def test_teachers_are_drawn_as_often_as_their_weights_say_and_the_same_every_time():
    weights = shares([1, 3])
    found = [drawn(7, update, weights) for update in range(4000)]
    assert found == [drawn(7, update, weights) for update in range(4000)]
    assert sum(found) / 4000 == pytest.approx(0.75, abs=0.03)
    assert found != [drawn(8, update, weights) for update in range(4000)]
    repeats = sum(one == other for one, other in pairwise(found)) / 3999
    assert repeats == pytest.approx(0.75**2 + 0.25**2, abs=0.04)  # independent from update to update
    assert {drawn(1, update, shares([1, 1, 1])) for update in range(50)} == {0, 1, 2}


@pytest.mark.parametrize(
    ("term", "members", "combine", "line"),
    [
        (
            HiddenCosine(),
            2,
            "mean",
            "objective.0.teacher: expected one of 0 to 1 for cosine, which several cannot teach together",
        ),
        (SoftTargets(teacher=2), 2, "mean", "objective.0.teacher: expected a teacher from 0 to 1, got 2"),
        (SoftTargets(teacher=0), 1, "mean", "expected none with one teacher, got 0"),
        (HiddenCosine(teacher=0), 2, "random", "expected none with combine: random, where one teaches everything, got 0"),
        (MaskedLM(teacher=0), 2, "mean", "expected none for mlm, which needs no teacher, got 0"),
    ],
)
def test_a_term_that_cannot_learn_from_these_teachers_is_refused(term, members, combine, line):
    with pytest.raises(KdError, match=line):
        check_assignment({"objective.0": term}, members, combine)


def test_terms_that_can_learn_from_several_teachers_are_let_through():
    check_assignment({"a": SoftTargets(), "b": SoftTargets(teacher=1), "c": HiddenCosine(teacher=0), "d": MaskedLM()}, 2, "mean")
    check_assignment({"a": SoftTargets(), "b": HiddenCosine()}, 2, "random")
    with pytest.raises(ValueError, match="at least 2 items"):
        TeachersSettings(models=[MemberSettings(model="x")])
