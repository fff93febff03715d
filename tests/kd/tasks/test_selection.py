"""The rows of each task, and the formulas of the terms on them, against independent float64 values."""

import math

import numpy as np
import pytest
import torch

from kd.models.outputs import EncoderOutputs
from kd.objective.objective import Objective
from kd.objective.teacher_outputs import TeacherOutputs
from kd.tasks.selection import TaskSelection, rows_of
from kd.terms.logits import LogitMSE, SoftTargets, TaskLoss
from tests.kd.tasks.conftest import KINDS, task_batch

ALPHA, T = 0.3, 2.5


def head_logits(kind, batch, seed):
    generator = torch.Generator().manual_seed(seed)
    rows, width = batch.input_ids.shape
    shape = {"regression": (rows, 1), "tagging": (rows, width, 3), "question_answering": (rows, width, 2)}.get(kind, (rows, 3))
    return torch.randn(shape, generator=generator) * 2


def softmax(values):
    shifted = np.exp(values - values.max())
    return shifted / shifted.sum()


def kl(teacher, student):
    p, q = softmax(np.asarray(teacher) / T), softmax(np.asarray(student) / T)
    return float((p * (np.log(p) - np.log(q))).sum()) * T * T


def soft(student, teacher, label):
    """alpha CE + (1 - alpha) T^2 KL of one distribution, in float64; without a label the first part is 0."""
    hard = -math.log(softmax(np.asarray(student))[label]) if label is not None else 0.0
    return ALPHA * hard + (1 - ALPHA) * kl(teacher, student)


def expected(kind, batch, student, teacher):
    """The mean over rows, by loops over the definition of each task."""
    s, t = student.double().numpy(), teacher.double().numpy()
    targets, values = batch.targets.numpy(), []
    for row in range(len(s)):
        real = int(batch.segments[row].sum())
        if kind == "classification":
            values.append(soft(s[row], t[row], targets[row] if targets[row] >= 0 else None))
        elif kind == "multi_label":
            for c in range(3):
                label = targets[row, c] if targets[row, c] >= 0 else None
                values.append(soft([0.0, s[row, c]], [0.0, t[row, c]], label))
        elif kind == "regression":
            hard = 0.0 if math.isnan(targets[row]) else (s[row, 0] - targets[row]) ** 2
            values.append(ALPHA * hard + (1 - ALPHA) * (s[row, 0] - t[row, 0]) ** 2)
        elif kind == "tagging":
            for position in np.flatnonzero(batch.words[row].numpy()):
                label = targets[row, position]
                values.append(soft(s[row, position], t[row, position], label if label >= 0 else None))
        else:
            for end in (0, 1):
                label = targets[row, end] if targets[row, end] >= 0 else None
                values.append(soft(s[row, :real, end], t[row, :real, end], label))
    return sum(values) / len(values), len(values)


@pytest.mark.parametrize("kind", KINDS)
def test_soft_targets_is_the_articles_formula(kind):
    batch = task_batch(kind)
    objective = Objective([SoftTargets(alpha=ALPHA, temperature=T)], 48)
    student, teacher = head_logits(kind, batch, 1).requires_grad_(), head_logits(kind, batch, 2)
    selection = TaskSelection(batch, objective.on_logits)
    counts = objective.counts(selection)
    outputs = EncoderOutputs(torch.zeros(1), {}, logits=selection.rows(student))
    teachers = TeacherOutputs({0: EncoderOutputs(torch.zeros(1), {}, logits=selection.rows(teacher))})
    loss, sums = objective(outputs, teachers, selection, counts)
    value, rows = expected(kind, batch, student.detach(), teacher)
    assert counts.tolist() == [rows]
    assert float(loss.detach()) == pytest.approx(value, rel=2e-6)
    assert float(sums) / rows == pytest.approx(value, rel=2e-6)
    loss.backward()
    step = 1e-4
    index = tuple([0] * (student.dim() - 1) + [0]) if kind != "tagging" else (0, 1, 0)
    moved = [student.detach().clone().double() for _ in range(2)]
    moved[0][index] += step
    moved[1][index] -= step
    slope = (expected(kind, batch, moved[0], teacher)[0] - expected(kind, batch, moved[1], teacher)[0]) / (2 * step)
    assert float(student.grad[index]) == pytest.approx(slope, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_the_task_loss_is_that_of_transformers(kind):
    """For rows that all have a label: transformers' own loss of the same logits."""
    batch = task_batch(kind, lengths=(9, 5))
    batch = type(batch)(**{**vars(batch), "targets": batch.targets})
    logits = head_logits(kind, batch, 1)
    labelled = [0] if kind == "tagging" else [0, 1]
    rows = TaskSelection(batch, [])
    values = TaskLoss()(_view(rows, logits))
    known = rows.mask(TaskLoss())
    mean = values[known].mean()
    functional = torch.nn.functional
    if kind == "multi_label":
        theirs = functional.binary_cross_entropy_with_logits(logits, batch.targets.float())
    elif kind == "regression":
        theirs = functional.mse_loss(logits[:, 0], batch.targets)
    elif kind == "tagging":
        theirs = functional.cross_entropy(logits[labelled].flatten(0, 1), batch.targets[labelled].flatten())
    elif kind == "question_answering":
        masked = logits.masked_fill(~batch.real[..., None], -1e4)
        theirs = sum(functional.cross_entropy(masked[..., end], batch.targets[:, end]) for end in (0, 1)) / 2
    else:
        theirs = functional.cross_entropy(logits, batch.targets)
    torch.testing.assert_close(mean, theirs)


def _view(selection, logits):
    from kd.terms.views import LogitView  # noqa: PLC0415

    return LogitView(selection.rows(logits), None, selection.labels)


def test_unlabelled_rows_count_for_soft_targets_and_not_for_the_task_loss():
    selection = TaskSelection(task_batch("classification"), [])
    assert int(selection.mask(SoftTargets(alpha=0.5)).sum()) == 3
    assert int(selection.mask(TaskLoss()).sum()) == 2


def test_label_smoothing_is_a_mixture_with_the_uniform_distribution():
    batch = task_batch("classification", lengths=(9,))
    logits = head_logits("classification", batch, 1)
    probabilities = softmax(logits[0].double().numpy())
    value = TaskLoss(label_smoothing=0.1)(_view(TaskSelection(batch, []), logits))
    target = np.full(3, 0.1 / 3)
    target[2] += 0.9
    assert float(value[0]) == pytest.approx(float(-(target * np.log(probabilities)).sum()), rel=1e-6)


def test_label_smoothing_of_an_answer_is_over_the_positions_of_its_text_for_any_padding():
    batch = task_batch("question_answering")
    logits = head_logits("question_answering", batch, 1)
    rows = TaskSelection(batch, [])
    values = TaskLoss(label_smoothing=0.1)(_view(rows, logits))
    for number, label in enumerate(rows.labels.tolist()):
        end, row = divmod(number, len(logits))
        real = int(batch.segments[row].sum())
        if label < 0:
            assert float(values[number]) == 0
            continue
        probabilities = softmax(logits[row, :real, end].double().numpy())
        target = np.full(real, 0.1 / real)
        target[label] += 0.9
        assert float(values[number]) == pytest.approx(float(-(target * np.log(probabilities)).sum()), rel=1e-6)


def test_padding_of_an_answer_is_out_of_reach():
    batch = task_batch("question_answering")
    rows = rows_of(batch, torch.zeros(3, 12, 2))
    probabilities = rows.softmax(-1)
    assert torch.equal(probabilities > 0, batch.real.repeat(2, 1))


def test_logits_of_two_teachers_of_a_regression_are_averaged():
    objective = Objective([LogitMSE()], 48)
    batch = task_batch("regression")
    selection = TaskSelection(batch, objective.on_logits)
    zero = EncoderOutputs(torch.zeros(1), {}, logits=torch.zeros(3, 1))
    teachers = TeacherOutputs(
        {n: EncoderOutputs(torch.zeros(1), {}, logits=torch.full((3, 1), value)) for n, value in enumerate((1.0, 3.0))}, (0.75, 0.25)
    )
    loss, _ = objective(zero, teachers, selection, objective.counts(selection))
    assert float(loss) == pytest.approx(0.5 * 1.5**2)
