"""Masking, weighting and dividing: against one float64 computation over whole batches, and what must never change a loss."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from kd.batch import IGNORED, Batch
from kd.errors import KdError
from kd.models.encoder import Encoder
from kd.models.outputs import Decoder, EncoderOutputs
from kd.objective.objective import Objective
from kd.objective.teacher_outputs import TeacherOutputs
from kd.terms import HiddenCosine, MaskedLM, SoftTargets, Term

VOCABULARY = 120
DISTILBERT: list[Term] = [SoftTargets(weight=5.0), MaskedLM(weight=2.0), HiddenCosine(weight=1.0)]


def outputs(encoder: Encoder, batch: Batch, objective: Objective) -> EncoderOutputs:
    last = encoder(batch).last_hidden
    decoder = Decoder(encoder.decoder_weight, encoder.decoder_bias, VOCABULARY)
    transformed = encoder.transform(last[objective.select(batch).logits])
    return EncoderOutputs(last, {encoder.shape.last_hidden: last}, transformed, decoder)


def share(objective: Objective, student: Encoder, teacher: Encoder, batch: Batch, divisors: Tensor) -> tuple[Tensor, Tensor]:
    objective = objective.for_encoders(student.shape, teacher.shape)
    with torch.no_grad():
        teachers = TeacherOutputs({0: outputs(teacher, batch, objective)})
    return objective(outputs(student, batch, objective), teachers, objective.select(batch), divisors)


def gradients(encoder: Encoder) -> dict[str, Tensor]:
    found = {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}
    encoder.zero_grad()
    return found


@pytest.mark.parametrize("positions", ["all", "masked"])
def test_distilberts_objective_is_the_float64_one(tiny_bert: Encoder, tiny_distilbert: Encoder, tiny_batch: Batch, positions: str) -> None:
    """5 x T^2 KL over real tokens + 2 x cross-entropy of masked tokens + 1 x cosine over real tokens, each a mean per token."""
    objective = Objective([SoftTargets(weight=5.0, positions=positions), *DISTILBERT[1:]], chunk_tokens=7)
    loss, _ = share(objective, tiny_distilbert, tiny_bert, tiny_batch, objective.counts(objective.select(tiny_batch)))
    student, teacher = tiny_distilbert(tiny_batch).last_hidden.double(), tiny_bert(tiny_batch).last_hidden.double()
    logits = [
        F.linear(e.transform(h.float()).double(), e.decoder_weight.double(), e.decoder_bias.double())
        for e, h in ((tiny_distilbert, student), (tiny_bert, teacher))
    ]
    real, masked = tiny_batch.segments > 0, tiny_batch.labels != IGNORED
    p = F.softmax(logits[1] / 2, -1)
    kl = 4 * (p * (F.log_softmax(logits[1] / 2, -1) - F.log_softmax(logits[0] / 2, -1))).sum(-1)
    expected = (
        5 * kl[real if positions == "all" else masked].mean()
        + 2 * F.cross_entropy(logits[0][masked], tiny_batch.labels[masked])
        + (1 - F.cosine_similarity(student[real], teacher[real], dim=-1)).mean()
    )
    assert float(loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)


def test_masked_positions_alone_are_selected_unless_a_term_looks_at_all(tiny_batch: Batch) -> None:
    assert torch.equal(Objective([MaskedLM()], 8).select(tiny_batch).logits_mask, tiny_batch.predicted)
    assert torch.equal(Objective([MaskedLM(), SoftTargets()], 8).select(tiny_batch).logits_mask, tiny_batch.real)
    assert not Objective([HiddenCosine()], 8).select(tiny_batch).logits_mask.any()


def test_sixty_four_more_padded_positions_change_no_loss(make_model, tiny_batch: Batch) -> None:
    student, teacher = (Encoder(make_model(family, max_position_embeddings=120)) for family in ("distilbert", "bert"))
    objective = Objective(DISTILBERT, chunk_tokens=16)
    names = ("input_ids", "labels", "positions", "segments")
    padded = replace(tiny_batch, **{n: F.pad(getattr(tiny_batch, n), (0, 64), value=IGNORED if n == "labels" else 0) for n in names})
    before = share(objective, student, teacher, tiny_batch, objective.counts(objective.select(tiny_batch)))
    after = share(objective, student, teacher, padded, objective.counts(objective.select(padded)))
    torch.testing.assert_close(after, before, rtol=1e-5, atol=1e-6)


def test_unequal_micro_batches_add_up_to_the_whole_batch(tiny_bert: Encoder, tiny_distilbert: Encoder, tiny_batch: Batch) -> None:
    """The second row has fewer real and fewer masked tokens than the first: a mean of means would weigh its tokens more."""
    objective = Objective(DISTILBERT, chunk_tokens=9)
    counts = objective.counts(objective.select(tiny_batch))
    whole, whole_sums = share(objective, tiny_distilbert, tiny_bert, tiny_batch, counts)
    whole.backward()
    expected = gradients(tiny_distilbert)
    parts, sums = 0.0, torch.zeros(3, dtype=torch.float64)
    for row in range(2):
        names = ("input_ids", "labels", "positions", "segments", "windows")
        one = replace(tiny_batch, **{name: getattr(tiny_batch, name)[row : row + 1] for name in names})
        part, part_sums = share(objective, tiny_distilbert, tiny_bert, one, counts)
        part.backward()
        parts += float(part.detach())
        sums += part_sums
    assert parts == pytest.approx(float(whole.detach()), rel=1e-5)
    torch.testing.assert_close(sums, whole_sums, rtol=1e-5, atol=1e-6)
    for name, gradient in gradients(tiny_distilbert).items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-3, atol=1e-6)


def test_the_order_of_rows_changes_no_loss(tiny_bert: Encoder, tiny_distilbert: Encoder, tiny_batch: Batch) -> None:
    objective = Objective(DISTILBERT, chunk_tokens=9)
    names = ("input_ids", "labels", "positions", "segments", "windows")
    turned = replace(tiny_batch, **{name: getattr(tiny_batch, name).flip(0) for name in names})
    counts = objective.counts(objective.select(tiny_batch))
    before, after = (share(objective, tiny_distilbert, tiny_bert, batch, counts)[0] for batch in (tiny_batch, turned))
    assert float(before.detach()) == pytest.approx(float(after.detach()), rel=1e-6)


def test_a_batch_without_a_masked_position_is_finite_with_gradients_of_zero(tiny_distilbert: Encoder, tiny_batch: Batch) -> None:
    batch = replace(tiny_batch, labels=torch.full_like(tiny_batch.labels, IGNORED))
    objective = Objective([MaskedLM()], chunk_tokens=8)
    loss, sums = objective(
        outputs(tiny_distilbert, batch, objective), TeacherOutputs(), objective.select(batch), objective.counts(objective.select(batch))
    )
    loss.backward()
    assert float(loss.detach()) == 0
    assert sums.tolist() == [0]
    assert all(float(gradient.abs().max()) == 0 for gradient in gradients(tiny_distilbert).values())


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_it(tiny_bert: Encoder, tiny_batch: Batch) -> None:
    objective = Objective([SoftTargets(), HiddenCosine()], chunk_tokens=9)
    loss, _ = share(objective, tiny_bert, tiny_bert, tiny_batch, objective.counts(objective.select(tiny_batch)))
    assert float(loss.detach()) == pytest.approx(0.0, abs=1e-5)


def test_terms_of_weight_zero_are_left_out_and_none_at_all_is_refused() -> None:
    assert Objective([MaskedLM(), SoftTargets(weight=0)], 8).needs == frozenset()
    with pytest.raises(KdError, match="weight above 0"):
        Objective([MaskedLM(weight=0)], 8)


def test_two_terms_of_one_kind_have_names_of_their_own() -> None:
    assert Objective([SoftTargets(temperature=1), SoftTargets(temperature=4), MaskedLM()], 8).names == [
        "soft_targets_1",
        "soft_targets_2",
        "mlm",
    ]
