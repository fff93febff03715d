"""The head against whole logits in float64 and torch's own gradients: every term, edge batches, several teachers, any chunk and tile."""

import itertools

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from kd.models.outputs import Decoder, EncoderOutputs
from kd.objective import products, vocabulary_head
from kd.objective.teacher_outputs import LogitRequest, TeacherOutputs
from kd.objective.vocabulary_head import chunked_terms, whole_terms
from kd.terms.logits import LogitMSE, MaskedLM, SoftTargets, TaskLoss
from kd.terms.views import LogitView

WIDTH, VOCABULARY, PADDING = 8, 31, 2
DIVERGENCES = ("forward", "reverse", "symmetric", "jensen_shannon")
SOFT = [
    SoftTargets(divergence=divergence, temperature=temperature, alpha=alpha, top_k=top_k)
    for divergence, temperature, alpha, top_k in itertools.product(DIVERGENCES, (0.5, 2.0, 20.0), (0.0, 0.3), (None, 3))
]
SETS = {
    "soft targets and mlm": ([SoftTargets(), MaskedLM()], ["all", "masked"]),
    "one temperature for all": (
        [SoftTargets(temperature=1), MaskedLM(), SoftTargets(temperature=1, alpha=0.5)],
        ["all", "masked", "masked"],
    ),
    "overlapping positions": (
        [SoftTargets(top_k=4), MaskedLM(), LogitMSE(), SoftTargets(divergence="reverse")],
        ["odd", "masked", "all", "masked"],
    ),
    "without a closed form": ([TaskLoss(label_smoothing=0.1), SoftTargets(), MaskedLM()], ["masked", "odd", "masked"]),
}
BATCHES = {"some predicted": 23, "all predicted": 23, "one predicted": 23, "none predicted": 23, "one token": 1, "no token": 0}


def batch_of(name: str, size: float = 1.0, teachers: int = 1, dtype: torch.dtype = torch.float32):
    """(student's states, weight and bias; the teachers' the same; labels). size: the spread of the logits."""
    draw = torch.Generator().manual_seed(5)
    tokens, rows = BATCHES[name], VOCABULARY + PADDING

    def model():
        values = (
            torch.randn(tokens, WIDTH, generator=draw) * size,
            torch.randn(rows, WIDTH, generator=draw),
            torch.randn(rows, generator=draw),
        )
        return tuple(value.to(dtype) for value in values)

    labels = torch.randint(0, VOCABULARY, (tokens,), generator=draw)
    predicted = {"some predicted": torch.arange(tokens) % 3 == 1, "one predicted": torch.arange(tokens) == 17}.get(
        name, torch.ones(tokens) > 0
    )
    return model(), [model() for _ in range(teachers)], labels.where(predicted & (name != "none predicted"), torch.tensor(-100))


def scales_of(places: list[str], labels: torch.Tensor) -> torch.Tensor:
    masks = {"all": labels > -200, "masked": labels >= 0, "odd": torch.arange(len(labels)) % 2 == 1}
    return torch.stack([masks[place].float() * 0.3 / (number + 1) for number, place in enumerate(places)])


def teachers_of(models, to: torch.dtype, weights=(1.0,)) -> TeacherOutputs:
    parts = [[value.to(to) for value in model] for model in models]
    return TeacherOutputs({n: EncoderOutputs(z, {}, z, Decoder(w, b, VOCABULARY)) for n, (z, w, b) in enumerate(parts)}, weights)


def head(student, models, labels, terms, requests, scales, chunk, weights=(1.0,)):
    """[loss, sums, gradients of states, weight and bias] of the head."""
    z, w, b = (value.clone().requires_grad_() for value in student)
    teachers = teachers_of(models, z.dtype, weights)
    loss, sums = chunked_terms((z, Decoder(w, b, VOCABULARY)), teachers, labels, terms, requests, scales, chunk)
    loss.backward()
    return [loss.detach(), sums, z.grad, w.grad, b.grad]


def exact(student, models, labels, terms, requests, scales, weights=(1.0,)):
    """The same from whole float64 logits. The formulas of the terms are tested on their own."""
    z, w, b = (value.double().requires_grad_() for value in student)
    logits = z @ w[:VOCABULARY].T + b[:VOCABULARY]
    theirs = [z.double() @ w[:VOCABULARY].double().T + b[:VOCABULARY].double() for z, w, b in models]
    loss, sums = torch.zeros((), dtype=torch.float64), []
    for term, request, scale in zip(terms, requests, scales, strict=True):
        teacher = None
        if request is not None and request.teacher is not None:
            teacher = theirs[request.teacher]
        elif request is not None:
            mixed = sum(share * torch.softmax(one / request.temperature, -1) for share, one in zip(weights, theirs, strict=True))
            teacher = mixed.log() * request.temperature
        values = torch.where(scale > 0, term(Exact(logits, teacher, labels)), 0.0)
        loss = loss + (values * scale).sum()
        sums.append(values.detach().sum())
    loss.backward()
    return [loss.detach(), torch.stack(sums), z.grad, w.grad, b.grad]


class Exact(LogitView):
    """A view whose logits stay in float64."""

    @property
    def pair(self):
        return self.student_logits, self.teacher_logits


def assert_close(found, expected, tolerance: float) -> None:
    for one, other in zip(found, expected, strict=True):
        unit = max(1.0, float(other.abs().max())) if other.numel() else 1.0
        torch.testing.assert_close(one.double(), other.double(), rtol=tolerance, atol=tolerance * unit)


def requests_of(terms, shared: LogitRequest | None = None):
    return [(shared or LogitRequest(0)) if term.required_outputs else None for term in terms]


@pytest.fixture(params=[1, 4, 100])
def tile(monkeypatch, request):
    """Rows of a tile, whatever the caches are."""
    monkeypatch.setattr(vocabulary_head, "tile_rows", lambda chunk, *_: min(chunk, request.param))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("terms", SETS)
@pytest.mark.parametrize("chunk", [1, 9, None])
def test_several_terms_on_edge_batches_equal_whole_logits(terms, batch, chunk, tile):
    kinds, places = SETS[terms]
    student, models, labels = batch_of(batch)
    given = (student, models, labels, kinds, requests_of(kinds), scales_of(places, labels))
    assert_close(head(*given, chunk), exact(*given), 1e-5)


@pytest.mark.parametrize("term", SOFT, ids=repr)
@pytest.mark.parametrize("size", [1.0, 100.0])
def test_soft_targets_equal_whole_logits(term, size, tile):
    student, models, labels = batch_of("some predicted", size)
    given = (student, models, labels, [term], requests_of([term]), scales_of(["all"], labels))
    # T^2 weighs the rounding of a small divergence; logits of thousands round at 1e-4
    assert_close(head(*given, 7), exact(*given), 2e-6 * max(1.0, term.temperature**2) * (1 if size == 1 else 30))


@pytest.mark.parametrize("terms", SETS)
def test_bf16_is_as_near_to_float64_as_whole_logits_in_bf16(terms):
    kinds, places = SETS[terms]
    student, models, labels = batch_of("some predicted", dtype=torch.bfloat16)
    given = (student, models, labels, kinds, requests_of(kinds), scales_of(places, labels))
    expected, found = exact(*given), head(*given, 9)
    z, w, b = (value.clone().requires_grad_() for value in student)
    logits = torch.nn.functional.linear(z, w[:VOCABULARY], b[:VOCABULARY])
    loss, sums = whole_terms(logits, teachers_of(models, torch.bfloat16), labels, kinds, given[4], given[5])
    loss.backward()
    for one, plain, exactly in zip(found, [loss.detach(), sums, z.grad, w.grad, b.grad], expected, strict=True):
        error, usual = ((value.double() - exactly.double()).norm() for value in (one, plain))
        assert float(error) <= 2 * float(usual) + 1e-3 * float(exactly.norm())


@pytest.mark.parametrize("temperature", [0.5, 2.0, 20.0])
def test_several_teachers_teach_their_mixture_and_each_its_own_terms(temperature, tile):
    terms = [SoftTargets(temperature=temperature), SoftTargets(temperature=temperature, top_k=5), SoftTargets(), LogitMSE(), MaskedLM()]
    student, models, labels = batch_of("some predicted", teachers=2)
    mixed = LogitRequest(None, temperature)
    requests = [mixed, mixed, LogitRequest(1), LogitRequest(0), None]
    given = (student, models, labels, terms, requests, scales_of(["all", "odd", "masked", "all", "masked"], labels))
    assert_close(head(*given, 9, (0.25, 0.75)), exact(*given, (0.25, 0.75)), 1e-6 * max(10.0, temperature**2))


def test_kept_memory_carries_nothing_into_the_next_micro_batch():
    large, small = batch_of("all predicted", 100.0), batch_of("some predicted")
    terms, places = SETS["soft targets and mlm"]

    def run(batch):
        student, models, labels = batch
        return head(student, models, labels, terms, requests_of(terms), scales_of(places, labels), 9)

    products._KEPT.clear()
    before = run(small)
    run(large)
    assert all(torch.equal(one, other) for one, other in zip(run(small), before, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_head_of_another_vocabulary_before_the_backward_pass_changes_nothing(dtype):
    """An evaluation during an update, or a second student."""
    terms, places = SETS["soft targets and mlm"]
    student, models, labels = batch_of("some predicted", dtype=dtype)
    given = (labels, terms, requests_of(terms), scales_of(places, labels), 4)
    expected = head(student, models, *given)
    z, w, b = (value.clone().requires_grad_() for value in student)
    loss, _ = chunked_terms((z, Decoder(w, b, VOCABULARY)), teachers_of(models, dtype), *given)
    other = torch.full((64, WIDTH), 100.0, dtype=dtype, requires_grad=True)
    decoder = Decoder(torch.ones(1001, WIDTH, dtype=dtype, requires_grad=True), torch.zeros(1001, dtype=dtype), 1001)
    theirs = TeacherOutputs({0: EncoderOutputs(other, {}, other.detach(), decoder)})
    chunked_terms((other, decoder), theirs, torch.arange(64), terms, requests_of(terms), torch.ones(2, 64), 5)[0].backward()
    loss.backward()
    assert all(torch.equal(one, same) for one, same in zip([z.grad, w.grad, b.grad], expected[2:], strict=True))


def test_closed_forms_share_one_softmax_for_each_model_and_temperature(monkeypatch):
    calls: list[torch.Tensor] = []
    original = torch.softmax
    monkeypatch.setattr(torch, "softmax", lambda logits, *rest, **more: calls.append(logits) or original(logits, *rest, **more))
    terms = [
        SoftTargets(temperature=1),
        MaskedLM(),
        SoftTargets(temperature=1, divergence="reverse"),
        SoftTargets(temperature=1, alpha=0.5),
    ]
    student, models, labels = batch_of("some predicted")
    scales = scales_of(["all"] * 4, labels)
    chunked_terms(
        (student[0].requires_grad_(), Decoder(student[1], student[2], VOCABULARY)),
        teachers_of(models, torch.float32),
        labels,
        terms,
        requests_of(terms),
        scales,
        None,
    )
    assert [tuple(logits.shape) for logits in calls] == 2 * [(23, VOCABULARY)]


def test_cross_entropy_reads_labelled_rows_only(monkeypatch):
    calls: list[int] = []
    original = torch.softmax
    monkeypatch.setattr(torch, "softmax", lambda logits, *rest, **more: calls.append(len(logits)) or original(logits, *rest, **more))
    terms = [SoftTargets(alpha=0.5)]
    student, models, labels = batch_of("some predicted")
    head(student, models, labels, terms, requests_of(terms), scales_of(["all"], labels), None)
    assert sorted(calls) == [int((labels >= 0).sum()), 23, 23]


class Sizes(TorchDispatchMode):
    """The largest tensor in bytes that an operation makes, and their number by bytes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else [result]:
            if isinstance(one, torch.Tensor):
                self.largest = max(self.largest, one.untyped_storage().nbytes())
        return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_vocabulary_of_250_000_needs_bounded_memory(monkeypatch, dtype):
    """No tensor is larger than a chunk's logits, for any number of tokens; the weight's gradient is smaller here."""
    products._KEPT.clear()
    monkeypatch.setattr("kd.objective.chunks.cache_bytes", lambda level: 1 << 20 if level == 2 else 32 << 20)
    tokens, width, vocabulary = 160, 16, 250_007
    weight = torch.zeros(vocabulary, width, dtype=dtype, requires_grad=True)
    states = torch.randn(tokens, width).to(dtype).requires_grad_()
    decoder = Decoder(weight, torch.zeros(vocabulary, dtype=dtype), vocabulary)
    teachers = TeacherOutputs({0: EncoderOutputs(states, {}, states.detach(), decoder)})
    labels, scales = torch.arange(tokens), torch.full((2, tokens), 0.1)
    with Sizes() as sizes:
        loss, _ = chunked_terms((states, decoder), teachers, labels, [SoftTargets(), MaskedLM()], [LogitRequest(0), None], scales, None)
        loss.backward()
    assert sizes.largest <= 128 * vocabulary * weight.element_size()
    assert float(loss.detach()) == pytest.approx(0.1 * tokens * torch.log(torch.tensor(float(vocabulary))).item(), rel=1e-4)
