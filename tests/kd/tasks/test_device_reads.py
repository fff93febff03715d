"""A task's micro-batch on a device that is no CPU asks that device nothing (see tests/kd/training/test_device_reads.py)."""

import pytest
import torch

from kd.objective.objective import Objective
from kd.tasks.cached_outputs import CachedOutputs
from kd.tasks.model import TaskEncoder
from kd.tasks.selection import TaskSelection
from kd.teacher.teacher import FrozenEncoder, ReplicatedTeacher
from kd.teacher.teachers import Teachers, fit_objective
from kd.terms import HiddenMSE, LogitMSE, SoftTargets, TaskLoss
from kd.training.distillation_module import DistillationModule
from tests.kd.tasks.conftest import CASES, KINDS, task_batch, task_model

META = torch.device("meta")


def micro_batch(family, kind, lengths=(9, 5, 7), cached=False):
    teacher, student = (TaskEncoder(task_model(family, kind, seed=seed), kind).to(META) for seed in (1, 2))
    member = ReplicatedTeacher(FrozenEncoder(teacher))
    terms = [SoftTargets(alpha=0.3), TaskLoss(), LogitMSE(weight=0.1)]
    if cached:
        columns = {"regression": 1, "question_answering": 2}.get(kind, 3)
        words = task_batch("tagging", lengths).words.sum(1)
        each = {"tagging": words, "question_answering": torch.tensor(lengths)}.get(kind, torch.ones(3))  # outputs of a row
        begins = torch.cat([torch.zeros(1), each.cumsum(0)]).long().numpy()
        member = CachedOutputs(member.module, torch.zeros(int(begins[-1]), columns), begins)
    else:
        terms.append(HiddenMSE(layer_map="final"))
    teachers = Teachers([member])
    objective = fit_objective(Objective(terms, None), student.shape, teachers.shapes, "mean")
    module = DistillationModule(student.train(), objective, 1).to(META)
    selection = TaskSelection(task_batch(kind, lengths).to(META), objective.on_logits)
    selection.prepare(objective.terms)
    with teachers.teach(0, selection, objective, 1) as outputs:
        loss, sums = module(selection, outputs, objective.counts(selection))
        loss.backward()
    return sums


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_no_task_asks_the_device(family, kind):
    assert micro_batch(family, kind).shape == (4,)


def test_neither_does_one_without_padding():
    assert micro_batch("bert", "classification", (12, 12, 12)).shape == (4,)


@pytest.mark.parametrize("kind", KINDS)
def test_kept_outputs_of_a_teacher_ask_the_device_nothing(kind):
    assert micro_batch("bert", kind, cached=True).shape == (3,)


@pytest.mark.parametrize(("family", "kind"), CASES)
def test_the_mask_for_a_device_gives_the_same_bits(family, kind):
    task = TaskEncoder(task_model(family, kind), kind)
    for lengths in ((9, 5, 7), (12, 12, 12)):
        batch = task_batch(kind, lengths, pad=task.hf.config.pad_token_id)
        with torch.no_grad():
            plain, masked = (task.hf(input_ids=batch.input_ids, attention_mask=mask) for mask in (batch.real.long(), task.mask_of(batch)))
        for name in ("start_logits", "end_logits") if kind == "question_answering" else ("logits",):
            ours, theirs = getattr(masked, name), getattr(plain, name)
            real = batch.real if kind in ("tagging", "question_answering") else slice(None)
            assert torch.equal(ours[real], theirs[real])
