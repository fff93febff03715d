"""Random objectives on random batches against formulas in float64, written here from the papers, on whole logits with torch's gradients.

Drawn: terms, weights, temperatures, schedules, teachers, vocabulary, documents, labels, size of the logits, chunks and tiles.
"""

import math
import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from torch import Tensor

from kd.batch import IGNORED, Batch
from kd.kernels import fp32_products
from kd.models.outputs import Decoder, EncoderOutputs
from kd.models.states import EncoderShape
from kd.objective import products, vocabulary_head
from kd.objective.objective import Objective
from kd.objective.teacher_outputs import TeacherOutputs
from kd.terms import Term

SHAPE = EncoderShape(2, 8, 2)
CASES, GROUPS = 25, 12
UPDATE, UPDATES = 9, 10


@dataclass
class Case:
    """models: states [B, S, D], decoder's weight and bias, of the student and of each teacher. terms: as in YAML, with plain numbers."""

    vocabulary: int
    size: float
    segments: Tensor
    labels: Tensor
    models: list[list[Tensor]]
    weights: list[float]
    terms: list[dict[str, Any]]
    chunk: int | None
    tile: int


def documents(draw: random.Random, rows: int, columns: int) -> Tensor:
    """Segments: one document, documents of one token, rows of padding, anything."""
    segments = torch.zeros(rows, columns, dtype=torch.int64)
    for row in range(rows):
        lengths = draw.choice([[columns], [1] * columns, [], [draw.choice([1, 2, 5, columns]) for _ in range(draw.randrange(columns + 1))]])
        start = 0
        for number, length in enumerate(lengths, start=1):
            segments[row, start : start + length] = number
            start += length
    return segments


def labels_of(draw: random.Random, segments: Tensor, vocabulary: int, torchs: torch.Generator) -> Tensor:
    """No label, one, some, or all."""
    share = draw.choice([0.0, 0.3, 1.0])
    chosen = (segments > 0) & (torch.rand(segments.shape, generator=torchs) < share)
    real = (segments > 0).nonzero().tolist()
    if real and draw.random() < 0.25:
        chosen = torch.zeros_like(chosen)
        chosen[tuple(draw.choice(real))] = True
    return torch.randint(0, vocabulary, segments.shape, generator=torchs).where(chosen, torch.tensor(IGNORED))


def term_of(draw: random.Random, vocabulary: int, teachers: int) -> dict[str, Any]:
    kind = draw.choice(["soft_targets", "soft_targets", "soft_targets", "mlm", "task_loss", "logit_mse"])
    term: dict[str, Any] = {"kind": kind, "weight": draw.choice([1.0, 0.5, 3.0, 0.0]), "positions": draw.choice(["all", "masked"])}
    if kind == "soft_targets":
        term["temperature"], term["alpha"] = draw.choice([0.5, 1.0, 2.0, 20.0]), draw.choice([0.0, 0.3, 1.0])
        term["divergence"] = draw.choice(["forward", "reverse", "symmetric", "jensen_shannon"])
        term["top_k"] = draw.choice([None, None, 1, 3, max(1, vocabulary - 1), vocabulary + 2])
    if kind == "task_loss":
        term["label_smoothing"] = draw.choice([0.0, 0.1])
    if teachers > 1 and (kind == "logit_mse" or (kind == "soft_targets" and draw.random() < 0.5)):
        term["teacher"] = draw.randrange(teachers)
    return term


def case_of(seed: int) -> Case:
    draw, torchs = random.Random(seed), torch.Generator().manual_seed(seed)
    vocabulary, rows, columns = draw.choice([2, 7, 33]), draw.choice([1, 2, 3]), draw.choice([1, 7, 20])
    teachers, size = draw.choice([1, 1, 2, 3]), draw.choice([0.0, 0.1, 1.0, 1.0, 100.0])
    segments = documents(draw, rows, columns)

    def model(width: int) -> list[Tensor]:
        sizes = ((rows, columns, width), (vocabulary + draw.choice([0, 3]), width))
        states, weight = (torch.randn(shape, generator=torchs) for shape in sizes)
        return [states * size, weight, torch.randn(len(weight), generator=torchs)]

    models = [model(4), *(model(draw.choice([4, 3])) for _ in range(teachers))]
    shares = [draw.uniform(0.01, 1) for _ in range(teachers)]
    terms = [term_of(draw, vocabulary, teachers) for _ in range(draw.choice([1, 2, 3]))]
    terms[0]["weight"] = 1.0
    labels = labels_of(draw, segments, vocabulary, torchs)
    weights = [share / sum(shares) for share in shares]
    return Case(vocabulary, size, segments, labels, models, weights, terms, draw.choice([1, 3, 128, None]), draw.choice([1, 4, 100]))


def objective_of(case: Case, scheduled: bool) -> Objective:
    """The case's objective. scheduled: as the last update of one whose numbers all change."""
    terms = [dict(term) for term in case.terms]
    for term in terms if scheduled else []:
        for name, start in (("weight", 0.7), ("temperature", 4.0), ("alpha", 0.5)):
            if name in term:
                term[name] = {"schedule": "linear", "from": start, "to": term[name]}
    objective = Objective(TypeAdapter(list[Term]).validate_python(terms), case.chunk).for_encoders(SHAPE, *[SHAPE] * len(case.weights))
    return objective.at(UPDATE, UPDATES)


def found(case: Case, objective: Objective, parts: list[slice]) -> list[Tensor]:
    """[loss, sums, gradients of the student] of the case in micro-batches of these rows."""
    leaves = [value.clone().requires_grad_() for value in case.models[0]]

    def outputs(model: list[Tensor], rows: slice, at: tuple[Tensor, ...]) -> EncoderOutputs:
        return EncoderOutputs(model[0][rows], {}, model[0][rows][at], Decoder(model[1], model[2], case.vocabulary))

    def batch(rows: slice) -> Batch:
        labels, segments = case.labels[rows], case.segments[rows]
        return Batch(labels.clamp(min=0), labels, segments, segments, torch.arange(len(labels)))

    selections = [objective.select(batch(rows)) for rows in parts]
    counts = torch.stack([objective.counts(selection) for selection in selections]).sum(0)
    results = []
    for rows, selection in zip(parts, selections, strict=True):
        taught = {n: outputs(model, rows, selection.logits) for n, model in enumerate(case.models[1:]) if objective.needs_of(n)}
        loss, sums = objective(outputs(leaves, rows, selection.logits), TeacherOutputs(taught, case.weights), selection, counts)
        loss.backward()
        results.append((loss.detach(), sums))
    losses, totals = zip(*results, strict=True)
    return [torch.stack(losses).sum(), torch.stack(totals).sum(0), *(leaf.grad for leaf in leaves)]


def values_of(term: dict[str, Any], own: Tensor, taught: list[Tensor], weights: list[float], labels: Tensor) -> Tensor:
    """The term's numbers [n] in float64."""
    known, log_q = labels >= 0, own - own.logsumexp(-1, keepdim=True)
    hard = torch.where(known, -log_q.gather(1, labels.clamp(min=0)[:, None])[:, 0], 0.0)
    if term["kind"] == "mlm":
        return hard
    if term["kind"] == "task_loss":
        smoothing = term["label_smoothing"]
        return torch.where(known, (1 - smoothing) * hard - smoothing * log_q.mean(-1), 0.0)
    if term["kind"] == "logit_mse":
        return (own - taught[term.get("teacher", 0)]).square().sum(-1) / 2
    temperature, chosen = term["temperature"], term.get("teacher")
    log_q, *each = (one / temperature - (one / temperature).logsumexp(-1, keepdim=True) for one in (own, *taught))
    log_p = each[chosen or 0]
    if chosen is None and len(each) > 1:
        log_p = torch.stack([one + math.log(share) for one, share in zip(each, weights, strict=True)]).logsumexp(0)
    if term["top_k"] is not None and term["top_k"] < own.shape[1]:
        order = log_p.argsort(-1, descending=True)
        first, rest = order[:, : term["top_k"]], order[:, term["top_k"] :]
        log_p, log_q = (torch.cat([x.gather(1, first), x.gather(1, rest).logsumexp(-1, keepdim=True)], -1) for x in (log_p, log_q))
    p, q, log_m = log_p.exp(), log_q.exp(), torch.logaddexp(log_p, log_q) - math.log(2)
    to_student, to_teacher = (p * (log_p - log_q)).sum(-1), (q * (log_q - log_p)).sum(-1)
    soft = {
        "forward": to_student,
        "reverse": to_teacher,
        "symmetric": (to_student + to_teacher) / 2,
        "jensen_shannon": ((p * (log_p - log_m)).sum(-1) + (q * (log_q - log_m)).sum(-1)) / 2,
    }[term["divergence"]]
    return term["alpha"] * hard + (1 - term["alpha"]) * temperature**2 * soft


def expected(case: Case) -> list[Tensor]:
    leaves = [value.double().requires_grad_() for value in case.models[0]]
    loss, sums = torch.zeros((), dtype=torch.float64), []
    for term in case.terms:
        at = case.labels >= 0 if term["positions"] == "masked" else case.segments > 0
        own, *taught = (
            z[at].double() @ w[: case.vocabulary].double().T + b[: case.vocabulary].double() for z, w, b in [leaves, *case.models[1:]]
        )
        values = values_of(term, own, taught, case.weights, case.labels[at])
        if term["weight"] > 0:
            loss = loss + term["weight"] * values.sum() / max(1, int(at.sum()))
            sums.append(values.detach().sum())
    loss.backward()
    gradients = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    return [loss.detach(), torch.stack(sums), *gradients]


@pytest.mark.parametrize("group", range(GROUPS))
def test_any_objective_on_any_batch_equals_whole_logits_in_float64(group: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with fp32_products.torchs_own():
        if group % 2:
            fp32_products.choose()  # on processors that gain
        for seed in range(group * CASES, (group + 1) * CASES):
            check(seed, monkeypatch)


def check(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    case = case_of(seed)
    monkeypatch.setattr(vocabulary_head, "tile_rows", lambda chunk, *_: max(1, min(chunk, case.tile)))
    for memory in products._KEPT.values():
        memory.fill_(255)  # NaN: what an earlier batch left is not read
    parts = [slice(row, row + 1) for row in range(len(case.segments))] if seed % 2 else [slice(None)]
    results = found(case, objective_of(case, scheduled=seed % 3 == 0), parts)
    # T^2 weighs the rounding of a small divergence; logits of thousands round at 1e-4
    hottest = max(float(term.get("temperature", 1.0)) for term in case.terms)
    tolerance = 3e-6 * max(1.0, hottest**2) * (30 if case.size > 10 else 1)
    for name, one, other in zip(("loss", "sums", "states", "weight", "bias"), results, expected(case), strict=True):
        unit = max(1.0, float(other.abs().max()))
        error = float((one.double() - other).abs().max())
        assert error <= tolerance * unit, (seed, name, error, unit, case.terms)
