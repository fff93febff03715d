"""A micro-batch on a device that is no CPU asks that device nothing: no value, no number of rows, and no tensor comes back to the host.

The device is torch's `meta`, which has shapes and no values. So it takes the branches that a GPU takes, and any question to it raises.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
import torch
from counted_calls import asker
from pydantic import TypeAdapter
from terms_on_ranks import TERMS, VOCABULARY, batches
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from kd.batch import IGNORED
from kd.models.encoder import Encoder
from kd.objective.objective import Objective
from kd.teacher.teacher import FrozenEncoder, ReplicatedTeacher
from kd.teacher.teachers import Teachers, fit_objective
from kd.terms import MaskedLM, SoftTargets, Term
from kd.training.distillation_module import DistillationModule
from kd.training.teaching import Teaching
from tests.kd.conftest import MODELS

META, CHUNK = torch.device("meta"), 20
QUESTIONS: dict[str, Callable[[Tensor], Any]] = {
    "item": lambda x: x.sum().item(),
    "bool": lambda x: bool(x.any()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "numpy": lambda x: x.numpy(),
    "nonzero": lambda x: x.nonzero(),
    "boolean index": lambda x: x[x > 0],
    "unique": lambda x: x.unique(),
    "repeat": lambda x: x.repeat_interleave(x.long()),
    "bincount": lambda x: x.long().bincount(),
    "copy to the device": lambda x: torch.zeros(3).to(META),
}


class NoCopies(TorchDispatchMode):
    """Raises for a copy of a tensor from the host to the device. A number of the host is no copy: kernels take it as an argument.

    pinned: copies by kd.copies.moved are allowed, which makes them from pinned memory, so that the host goes on.
    """

    def __init__(self, pinned: bool) -> None:
        super().__init__()
        self.pinned = pinned

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        sources = [one for one in args if isinstance(one, Tensor) and one.device.type == "cpu" and one.dim()]
        if sources and isinstance(result, Tensor) and result.device == META and not (self.pinned and asker() == "copies.py:moved"):
            raise AssertionError(f"{func} copies {tuple(sources[0].shape)} from the host")
        return result


@contextmanager
def no_question(pinned: bool = False) -> Iterator[None]:
    """Raises for any question to the device, and for a copy to it. pinned: see NoCopies."""
    with NoCopies(pinned):
        yield


def micro_batch(
    student: Encoder, teacher: Encoder, terms: Sequence[Term], looked_at: bool, copies: int = 1, labels: bool = True
) -> tuple[Tensor, Tensor]:
    """(loss, sums) of a micro-batch, forward and backward. Only its selection is made before. copies: of the teacher."""
    teachers = Teachers([ReplicatedTeacher(FrozenEncoder(teacher)) for _ in range(copies)], [1.0] * copies)
    objective = fit_objective(Objective(terms, CHUNK), student.shape, teachers.shapes, "mean")
    module = DistillationModule(student.train(), objective, VOCABULARY).to(META)
    module.teaching = Teaching(torch.arange(VOCABULARY, device=META) % 3, META) if looked_at else None
    batch = batches(0, 4, 0, 1)[0]
    batch = batch if labels else replace(batch, labels=torch.full_like(batch.labels, IGNORED))
    selection = objective.select(batch.to(META))
    selection.prepare(objective.terms)
    divisors = objective.counts(selection).to(META)
    with no_question(pinned=looked_at), teachers.teach(0, selection, objective, VOCABULARY) as outputs:
        loss, sums = module(selection, outputs, divisors)
        loss.backward()
    assert all(weight.grad is not None for weight in module.projections.parameters())
    return loss, sums


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_device_of_these_tests_answers_no_question(question):
    with pytest.raises((RuntimeError, NotImplementedError, AssertionError, TypeError)), no_question():
        QUESTIONS[question](torch.empty(3, device=META))


def test_all_kinds_of_terms_are_tried_here():
    kinds = {term["kind"] for term in TERMS}
    assert kinds == {term.model_fields["kind"].default for term in TypeAdapter(Term)._type.__args__[0].__args__} - {"task_loss"}


@pytest.mark.parametrize("term", TERMS, ids=lambda term: term["kind"])
def test_no_term_asks_the_device(term):
    student, teacher = (Encoder(MODELS[name](layers=layers)).to(META) for name, layers in (("distilbert", 2), ("bert", 4)))
    (one,) = TypeAdapter(list[Term]).validate_python([term])
    loss, sums = micro_batch(student, teacher, [one], looked_at=False)
    assert (loss.shape, sums.shape, loss.device) == ((), (1,), META)


@pytest.mark.parametrize("attention", ["sdpa", "eager", "documents"])
@pytest.mark.parametrize("family", ["bert", "distilbert", "modernbert", "deberta-v3"])
def test_no_attention_asks_the_device(family, attention):
    student, teacher = (Encoder(MODELS[family](layers=layers)).to(META) for layers in (2, 4))
    student.use_attention(attention)
    terms = [*TypeAdapter(list[Term]).validate_python([TERMS[0], TERMS[4], TERMS[14]]), MaskedLM()]
    micro_batch(student, teacher, terms, looked_at=True)


@pytest.mark.parametrize(("copies", "labels"), [(2, True), (1, False)], ids=["two teachers", "no labels"])
def test_neither_do_several_teachers_or_a_batch_without_labels(copies, labels):
    student, teacher = (Encoder(MODELS["bert"](layers=layers)).to(META) for layers in (2, 4))
    kinds = ("forward", "reverse", "symmetric", "jensen_shannon")
    terms = [SoftTargets(divergence=kind, alpha=0.5, positions=where) for kind in kinds for where in ("all", "masked")]
    loss, sums = micro_batch(student, teacher, [*terms, MaskedLM()], looked_at=False, copies=copies, labels=labels)
    assert (loss.shape, sums.shape) == ((), (9,))
