"""Every term inside the objective, with real encoders: what must change no loss, and what is computed and kept at all."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from terms_on_ranks import TERMS
from torch import Tensor

from kd.batch import IGNORED, Batch
from kd.copies import Indices
from kd.models.capture import capture
from kd.models.encoder import Encoder
from kd.models.outputs import Decoder, EncoderOutputs
from kd.models.states import StateKey
from kd.objective.objective import Objective
from kd.objective.projections import make_projections
from kd.objective.teacher_outputs import TeacherOutputs
from kd.terms import MaskedLM, Relations, SoftTargets, Term

pytestmark = pytest.mark.slow

VOCABULARY = 120
NAMES = ("input_ids", "labels", "positions", "segments", "windows")
ON_ROWS = [values | ({"group_rows": 2} if "group_rows" in values else {}) for values in TERMS]
"""group_rows 2: all documents of the batch are compared with each other, in whatever order its two rows stand."""


def objective_of(values: list[dict], student: Encoder, teacher: Encoder) -> Objective:
    return Objective(TypeAdapter(list[Term]).validate_python(values), chunk_tokens=9).for_encoders(student.shape, teacher.shape)


def outputs(encoder: Encoder, batch: Batch, requested: frozenset[StateKey], selected: Indices) -> EncoderOutputs:
    found = capture(encoder, batch, requested)
    decoder = Decoder(encoder.decoder_weight, encoder.decoder_bias, VOCABULARY)
    return found._replace(transformed=encoder.transform(found.last_hidden[selected]), decoder=decoder)


def run(objective: Objective, student: Encoder, teacher: Encoder, batch: Batch, divisors: Tensor | None = None) -> tuple[Tensor, Tensor]:
    selection = objective.select(batch)
    with torch.no_grad():
        teachers = TeacherOutputs({0: outputs(teacher, batch, objective.teacher_states(), selection.logits)})
    divisors = objective.counts(selection) if divisors is None else divisors
    own = outputs(student, batch, objective.student_states, selection.logits)
    return objective(own, teachers, selection, divisors, dict(make_projections(objective, seed=1)))


@pytest.fixture
def models(make_model) -> tuple[Encoder, Encoder]:
    """A student of 2 layers of width 16, a teacher of 4 of width 32; positions for a padded batch."""
    small = {"hidden_size": 16, "intermediate_size": 32, "max_position_embeddings": 120}
    return Encoder(make_model("bert", seed=2, layers=2, **small)), Encoder(make_model("bert", max_position_embeddings=120))


def changed(batch: Batch, change: Callable[[str, Tensor], Tensor]) -> Batch:
    return replace(batch, **{name: change(name, getattr(batch, name)) for name in NAMES})


def padded(name: str, values: Tensor) -> Tensor:
    return values if name == "windows" else F.pad(values, (0, 64), value=IGNORED if name == "labels" else 0)


@pytest.mark.parametrize("change", [padded, lambda name, values: values.flip(0)], ids=["64 more padded positions", "another order of rows"])
def test_padding_and_the_order_of_rows_change_no_term(models, tiny_batch: Batch, change) -> None:
    objective = objective_of(ON_ROWS, *models)
    loss, sums = run(objective, *models, tiny_batch)
    again, others = run(objective, *models, changed(tiny_batch, change))
    assert torch.equal(objective.counts(objective.select(changed(tiny_batch, change))), objective.counts(objective.select(tiny_batch)))
    for name, before, after in zip(objective.names, sums.tolist(), others.tolist(), strict=True):
        assert after == pytest.approx(before, rel=1e-5, abs=1e-5), name
    assert float(again.detach()) == pytest.approx(float(loss.detach()), rel=1e-5)


def test_micro_batches_of_unequal_counts_add_up_to_the_whole_batch_in_every_term(models, tiny_batch: Batch) -> None:
    """Documents are compared within a row (group_rows: 1), so that the cut between rows does not matter to them either."""
    objective = objective_of(TERMS, *models)
    whole, sums = run(objective, *models, tiny_batch)
    whole.backward()
    expected = {name: weight.grad.clone() for name, weight in models[0].named_parameters()}
    models[0].zero_grad()
    total, parts = 0.0, torch.zeros_like(sums)
    for row in range(2):
        one = changed(tiny_batch, lambda name, values, row=row: values[row : row + 1])
        loss, found = run(objective, *models, one, objective.counts(objective.select(tiny_batch)))
        loss.backward()
        total, parts = total + float(loss.detach()), parts + found
    for name, before, after in zip(objective.names, sums.tolist(), parts.tolist(), strict=True):
        assert after == pytest.approx(before, rel=1e-5, abs=1e-5), name
    assert total == pytest.approx(float(whole.detach()), rel=1e-5)
    for name, weight in models[0].named_parameters():
        torch.testing.assert_close(weight.grad, expected[name], rtol=2e-3, atol=1e-5)


def test_a_student_equal_to_its_teacher_has_nothing_to_learn_from_any_term(tiny_bert: Encoder, tiny_batch: Batch) -> None:
    """But from hard labels, and from the contrastive term, which then tells the group's own spread. Projections begin as the identity."""
    maps = {"skip", "mean", "every_other"}
    distilling = [
        {**values, **({"layer_map": "uniform"} if values.get("layer_map") in maps else {}), "alpha": 0.0}
        if values["kind"] == "soft_targets"
        else {
            **values,
            **({"layer_map": "uniform"} if isinstance(values.get("layer_map"), list) or values.get("layer_map") in maps else {}),
        }
        for values in ON_ROWS
        if values["kind"] not in ("mlm", "contrastive")
    ]
    objective = objective_of(distilling, tiny_bert, tiny_bert)
    _, sums = run(objective, tiny_bert, tiny_bert, tiny_batch)
    for name, total in zip(objective.names, sums.tolist(), strict=True):
        assert total == pytest.approx(0.0, abs=1e-4), name


def test_documents_without_partners_are_counted_nowhere(models, tiny_batch: Batch) -> None:
    """Rows of three and two documents: five have a partner in their row, three have two; nobody has one in a group of one document."""
    objective = objective_of([{"kind": kind, "group_rows": 1} for kind in ("similarity", "rkd_distance", "rkd_angle")], *models)
    assert objective.counts(objective.select(tiny_batch)).tolist() == [5, 5, 3]
    alone = changed(tiny_batch, lambda name, values: values.clamp(max=1) if name == "segments" else values)
    assert objective.counts(objective.select(alone)).tolist() == [0, 0, 0]
    loss, sums = run(objective, *models, alone)
    assert float(loss.detach()) == 0
    assert sums.tolist() == [0, 0, 0]


def test_what_no_term_needs_is_neither_asked_of_the_teacher_nor_kept(models) -> None:
    student, teacher = models
    shapes = student.shape, teacher.shape
    assert Objective([MaskedLM()], 8).for_encoders(*shapes).needs == frozenset()
    logits = Objective([MaskedLM(), SoftTargets()], 8).for_encoders(*shapes)
    assert (logits.needs, logits.teacher_states(), logits.student_states) == ({"logits"}, frozenset(), frozenset())
    relations = Objective([Relations(relations=("vv",))], 8).for_encoders(*shapes)
    assert relations.needs == {"values"}
    assert relations.student_states == {StateKey("values", 1)}
    everything = objective_of(TERMS, *models)
    assert everything.needs == {"logits", "last_hidden", "hidden", "embeddings", "queries", "keys", "values"}
    last = objective_of([{"kind": "cosine", "projection": "shared"}, {"kind": "pkd", "layer_map": "final", "projection": "each"}], *models)
    assert last.needs == {"last_hidden"}
    assert last.projections == {"cosine_shared": 32, "pkd_layer_1": 32}


def test_a_projection_is_the_same_for_the_same_seed_and_keeps_lengths(models) -> None:
    objective = objective_of([{"kind": "hints", "layer_map": "uniform"}, {"kind": "hidden_mse", "projection": "shared"}], *models)
    made, again, other = (make_projections(objective, seed) for seed in (1, 1, 2))
    assert list(made) == ["hints_layer_0", "hints_layer_1", "hidden_mse_shared"]
    for name, projection in made.items():
        assert torch.equal(projection.weight, again[name].weight)
        assert not torch.equal(projection.weight, other[name].weight)
        torch.testing.assert_close(projection.weight.T @ projection.weight, torch.eye(16), rtol=0, atol=1e-5)
