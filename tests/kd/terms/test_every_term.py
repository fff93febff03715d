"""Every kind of the union `Term`, a new one without a line here: finite and right on the edges of what a batch may be."""

from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter
from torch import Tensor

from kd.batch import IGNORED, Batch
from kd.models.outputs import Decoder, EncoderOutputs
from kd.models.states import EncoderShape, StateKey
from kd.objective.objective import Objective
from kd.objective.projections import make_projections
from kd.objective.teacher_outputs import TeacherOutputs
from kd.terms import Term
from kd.terms.schedules import Schedulable

KINDS = {term.model_fields["kind"].default: term for term in get_args(get_args(Term)[0])}
SOFTENED = [kind for kind, term in KINDS.items() if "temperature" in term.model_fields]
FIELDS = ("input_ids", "labels", "positions", "segments")
WIDTH, VOCABULARY = 12, 19
STUDENT, TEACHER = EncoderShape(2, WIDTH, 3), EncoderShape(4, WIDTH, 3)
SEGMENTS = {
    "one token": [[1]],
    "all padding but one token": [[0] * 6, [0, 0, 0, 1, 0, 0]],
    "all padding": [[0] * 6],
    "one document": [[1] * 6],
    "a document of one token among others": [[1, 2, 2, 3, 3, 3], [1, 1, 1, 1, 0, 0]],
}
States = dict[StateKey, Tensor]


def batch_of(segments: list[list[int]]) -> Batch:
    """Every second real token is predicted."""
    numbers = torch.tensor(segments)
    places = torch.arange(numbers.numel()).reshape(numbers.shape)
    labels = (places % VOCABULARY).where((numbers > 0) & (places % 2 == 1), torch.tensor(IGNORED))
    return Batch(places % VOCABULARY, labels, places, numbers, torch.arange(len(numbers)))


def objective_of(kind: str, **settings: object) -> Objective:
    return Objective(TypeAdapter(list[Term]).validate_python([{"kind": kind, **settings}]), 5).for_encoders(STUDENT, TEACHER)


def states_of(objective: Objective, batch: Batch, seed: int = 1, scale: float = 1.0) -> tuple[States, States]:
    """What both models give, drawn; scale 0: the same state everywhere."""
    draw = torch.Generator().manual_seed(seed)

    def drawn(wanted: frozenset[StateKey], last: StateKey) -> States:
        shape = (*batch.segments.shape, WIDTH)
        return {
            state: torch.randn(WIDTH, generator=draw).expand(shape).clone() if scale == 0 else scale * torch.randn(shape, generator=draw)
            for state in sorted(wanted | {last})
        }

    return drawn(objective.student_states, STUDENT.last_hidden), drawn(objective.teacher_states(), TEACHER.last_hidden)


def run(objective: Objective, batch: Batch, ours: States, theirs: States, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    """(sums [1], gradients of the student's states, one after the other)."""
    selection = objective.select(batch)
    weight = torch.randn(VOCABULARY, WIDTH, generator=torch.Generator().manual_seed(5)).to(dtype)
    decoder = Decoder(weight, torch.zeros(VOCABULARY, dtype=dtype), VOCABULARY)
    leaves = {state: values.to(dtype, copy=True).requires_grad_() for state, values in ours.items()}
    given = {state: values.to(dtype) for state, values in theirs.items()}
    student, teacher = (
        EncoderOutputs(states[last], states, states[last][selection.logits], decoder)
        for states, last in ((leaves, STUDENT.last_hidden), (given, TEACHER.last_hidden))
    )
    projections = dict(make_projections(objective, 1))
    loss, sums = objective(student, TeacherOutputs({0: teacher}), selection, objective.counts(selection), projections)
    if loss.requires_grad:
        loss.backward()
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves.values()]
    assert torch.isfinite(loss)
    return sums, torch.stack(gradients).float()


@pytest.mark.parametrize("kind", KINDS)
def test_edge_batches_give_finite_numbers_and_gradients_and_padding_none(kind: str) -> None:
    objective = objective_of(kind)
    for name, segments in SEGMENTS.items():
        batch = batch_of(segments)
        for dtype in (torch.float32, torch.bfloat16):
            for scale in (0, 1, 100):
                sums, gradients = run(objective, batch, *states_of(objective, batch, scale=scale), dtype)
                assert torch.isfinite(sums).all(), (name, dtype, scale)
                assert torch.isfinite(gradients).all(), (name, dtype, scale)
                assert not gradients[:, batch.segments == 0].any(), (name, dtype, scale)
                if name == "all padding":
                    assert sums.tolist() == [0.0]


@pytest.mark.parametrize("kind", KINDS)
def test_neither_more_padding_nor_the_order_of_rows_changes_a_term(kind: str) -> None:
    objective, batch = objective_of(kind), batch_of(SEGMENTS["a document of one token among others"])
    ours, theirs = states_of(objective, batch)
    expected, gradients = run(objective, batch, ours, theirs)
    longer = replace(
        batch,
        **{name: F.pad(getattr(batch, name), (0, 64), value=IGNORED if name == "labels" else 0) for name in FIELDS},
        update=batch.update,
    )
    found, there = run(
        objective, longer, *({state: F.pad(x, (0, 0, 0, 64), value=3.0) for state, x in of.items()} for of in (ours, theirs))
    )
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(there[:, :, :6], gradients, rtol=1e-4, atol=1e-6)
    turned = replace(batch, **{name: getattr(batch, name).flip(0) for name in FIELDS})
    found, there = run(objective, turned, *({state: x.flip(0) for state, x in of.items()} for of in (ours, theirs)))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(there.flip(1), gradients, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_bf16_is_fp32_on_the_same_rounded_numbers(kind: str) -> None:
    """To what rounding products of D = 12 to bf16 once or twice more may do: 2^-8 each."""
    objective, batch = objective_of(kind), batch_of([[1, 1, 2, 2, 3, 3], [1, 1, 1, 2, 2, 2]])
    ours, theirs = ({state: x.bfloat16().float() for state, x in of.items()} for of in states_of(objective, batch))
    whole, _ = run(objective, batch, ours, theirs)
    half, _ = run(objective, batch, ours, theirs, torch.bfloat16)
    torch.testing.assert_close(half, whole, rtol=2e-2, atol=1e-3)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 20.0])
@pytest.mark.parametrize("kind", SOFTENED)
def test_any_temperature_gives_finite_numbers(kind: str, temperature: float) -> None:
    objective, batch = objective_of(kind, temperature=temperature), batch_of(SEGMENTS["a document of one token among others"])
    for scale in (1, 100):
        for values in run(objective, batch, *states_of(objective, batch, scale=scale), torch.bfloat16):
            assert torch.isfinite(values).all()


def test_every_term_may_be_weighed_by_a_schedule() -> None:
    for kind, term in KINDS.items():
        assert any(isinstance(mark, Schedulable) for mark in term.model_fields["weight"].metadata), kind
