"""The head with the kernel, in Triton's interpreter, equals the head with tiles. Objectives that the kernel does not know keep tiles."""

from typing import Any

import pytest
import torch
from interpreter import interpreter, need_triton

from kd.kernels import fused_terms
from kd.kernels.fused_terms import Form
from kd.models.outputs import Decoder, EncoderOutputs
from kd.objective import fused_head
from kd.objective.fused_head import FUSED, TILES, FusedPlan, plan_of
from kd.objective.objective import Objective
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.objective.vocabulary_head import chunked_terms
from kd.terms.logits import LogitMSE, MaskedLM, SoftTargets, TaskLoss
from tests.kd.objective.test_head_paths import BATCHES, assert_close, batch_of, exact, head, requests_of, scales_of
from tests.kd.training.test_device_reads import no_question

SETS = {
    "soft targets and mlm": ([SoftTargets(), MaskedLM()], ["all", "masked"]),
    "all": ([LogitMSE(), MaskedLM(), SoftTargets(divergence="reverse", temperature=1.0, alpha=0.3)], ["odd", "masked", "all"]),
    "no teacher": ([MaskedLM()], ["masked"]),
    "no softmax": ([LogitMSE()], ["odd"]),
    "jensen_shannon": ([SoftTargets(divergence="jensen_shannon", temperature=20.0, alpha=0.5)], ["masked"]),
    "symmetric": ([SoftTargets(divergence="symmetric", temperature=0.5)], ["odd"]),
}
META, CPU = torch.device("meta"), torch.device("cpu")


@pytest.fixture(scope="module")
def pool():
    need_triton()
    with interpreter() as pool:
        yield pool


def with_kernel(*given: Any) -> list[torch.Tensor]:
    """`head` in the interpreter's process."""
    with fused_terms.forced(True):
        assert plan_of(given[3], given[4]) is not None
        return head(*given)


@pytest.mark.slow
@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("terms", SETS)
def test_the_head_with_the_kernel_equals_the_head_with_tiles(pool, terms, batch):
    """Three chunks of 8 rows of logits follow each other, and use the same memory."""
    kinds, places = SETS[terms]
    student, models, labels = batch_of(batch)
    given = (student, models, labels, kinds, requests_of(kinds), scales_of(places, labels))
    fused = pool.submit(with_kernel, *given, 9).result()
    unit = max(10.0, max(getattr(term, "temperature", 1.0) for term in kinds) ** 2)
    assert_close(fused, head(*given, 9), 1e-6 * unit)
    assert_close(fused, exact(*given), 1e-6 * unit)


@pytest.mark.slow
@pytest.mark.parametrize("terms", SETS)
def test_bf16_is_as_near_to_float64_as_tiles(pool, terms):
    kinds, places = SETS[terms]
    student, models, labels = batch_of("some predicted", dtype=torch.bfloat16)
    given = (student, models, labels, kinds, requests_of(kinds), scales_of(places, labels))
    fused, tiles, expected = pool.submit(with_kernel, *given, 9).result(), head(*given, 9), exact(*given)
    for one, plain, exactly in zip(fused, tiles, expected, strict=True):
        error, usual = (float((value.double() - exactly.double()).norm()) for value in (one, plain))
        assert error <= 3 * usual + 1e-3 * float(exactly.norm())  # the interpreter cuts the gradient's bf16 off, tiles round it


@pytest.mark.parametrize(
    ("terms", "form", "order"),
    [
        ([MaskedLM(), SoftTargets()], Form("forward", mlm=True), (1, 0)),
        ([SoftTargets(divergence="reverse", alpha=0.5)], Form("reverse", labels=True), (0,)),
        ([LogitMSE(), MaskedLM()], Form(mlm=True, mse=True), (1, 0)),
    ],
)
def test_an_objective_of_these_terms_has_a_kernel(terms, form, order):
    plan = plan_of(terms, requests_of(terms))
    assert plan is not None
    assert (plan.form, plan.order, plan.teacher) == (form, order, 0)


def test_an_objective_without_a_teacher_has_a_kernel():
    assert plan_of([MaskedLM()], [None]) == FusedPlan(Form(mlm=True), (0,), None, 1.0, 0.0)


ONE, OTHER, MIXED = LogitRequest(0), LogitRequest(1), LogitRequest(None, 2.0)


@pytest.mark.parametrize(
    ("terms", "requests"),
    [
        ([SoftTargets(top_k=4)], [ONE]),
        ([SoftTargets(), SoftTargets(temperature=4.0)], [ONE, ONE]),
        ([SoftTargets(), LogitMSE()], [ONE, OTHER]),
        ([SoftTargets(), MaskedLM()], [MIXED, None]),
        ([TaskLoss()], [None]),
        ([MaskedLM(), MaskedLM(positions="all")], [None, None]),
    ],
    ids=["top_k", "two temperatures", "two teachers", "a mixture", "another kind", "twice the same"],
)
def test_other_objectives_keep_the_tiles(terms, requests):
    assert plan_of(terms, requests) is None
    with fused_terms.forced(True):
        assert str(fused_head.choice(terms, requests, torch.float32, CPU)).startswith(TILES)


def test_a_cpu_has_one_way_and_asks_for_no_triton(monkeypatch):
    monkeypatch.setattr(fused_terms, "find_spec", lambda name: pytest.fail("asked for Triton"))
    objective = Objective([SoftTargets(), MaskedLM()], None)
    assert objective.head_way(torch.float32, CPU) is None
    head(*batch_of("one token"), [MaskedLM()], [None], torch.ones(1, 1), None)


def test_without_triton_a_gpu_takes_the_tiles_and_the_reason_is_told(monkeypatch):
    monkeypatch.setattr(fused_terms, "find_spec", lambda name: None)
    monkeypatch.setattr(fused_terms, "DEVICES", ("cpu",))
    fused_terms._problem.cache_clear()
    terms, places = SETS["soft targets and mlm"]
    try:
        assert Objective(terms, None).head_way(torch.float32, CPU) == f"{TILES} (Triton is not installed)"
        student, models, labels = batch_of("some predicted")
        given = (student, models, labels, terms, requests_of(terms), scales_of(places, labels))
        assert_close(head(*given, 9), exact(*given), 1e-5)
    finally:
        fused_terms._problem.cache_clear()
    with fused_terms.forced(True):
        assert Objective(terms, None).head_way(torch.float32, CPU) == FUSED


def test_the_kernel_is_started_without_a_question_to_the_device(monkeypatch):
    """Everything but the kernel itself runs on torch's meta device, where a question raises."""
    started: list[tuple[Any, ...]] = []

    class Module:
        rows: Any = type("Rows", (), {"__getitem__": lambda self, grid: lambda *given, **more: started.append((grid, given, more))})()

    monkeypatch.setattr(fused_terms, "import_module", lambda name: Module)
    terms = [SoftTargets(alpha=0.5), MaskedLM()]
    states, weight, bias = (torch.empty(size, device=META, dtype=torch.bfloat16) for size in ((23, 8), (33, 8), (33,)))
    labels, scales = torch.empty(23, device=META, dtype=torch.int64), torch.empty(2, 23, device=META)
    teachers = TeacherOutputs({0: EncoderOutputs(states, {}, states, Decoder(weight, bias, 31))})
    leaves = [value.detach().requires_grad_() for value in (states, weight, bias)]
    rows: Any = object()  # the kernel reads every row
    with fused_terms.forced(True), no_question():
        decoder = Decoder(leaves[1], leaves[2], 31)
        loss, _ = chunked_terms((leaves[0], decoder), teachers, labels, terms, [LogitRequest(0), None], scales, 9, rows)
        loss.backward()
    assert [grid for grid, _, _ in started] == [(8,), (8,), (7,)]
    assert started[0][1][0].shape == (8, 32), "a row takes a multiple of 16 columns"
    assert [leaf.grad is not None for leaf in leaves] == [True] * 3
