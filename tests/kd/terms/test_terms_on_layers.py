"""Terms on hidden states, attention, relations and documents: golden values, finite differences, what must not change them."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from kd.errors import KdError
from kd.models.states import EncoderShape, StateKey
from kd.terms import (
    AttentionKL,
    AttentionMSE,
    Contrastive,
    EmbeddingMSE,
    HiddenCosine,
    HiddenMSE,
    Hints,
    Patient,
    RelationalAngle,
    RelationalDistance,
    Relations,
    Similarity,
    Term,
    attention_blocks,
    documents,
)
from kd.terms.base import AttentionTerm, DocumentTerm, TokenTerm
from kd.terms.pooling import documents_of, first_tokens, groups, members_of, pooled, with_partners
from kd.terms.views import AttentionView, DocumentView, Layer, TokenView

GOLDEN_FOLDER = Path(__file__).parents[2] / "golden"
GOLDEN = json.loads((GOLDEN_FOLDER / "terms.json").read_text())
LAYERS, DOCUMENTS = GOLDEN["layers"], GOLDEN["documents"]
SEGMENTS = torch.tensor(LAYERS["segments"])
REAL = SEGMENTS > 0
ON_TOKENS = [
    (HiddenMSE(), "mean_square"),
    (EmbeddingMSE(), "mean_square"),
    (Hints(), "half_squares"),
    (Patient(), "pkd"),
    (HiddenCosine(), "cosine"),
]
ON_MAPS = [
    (AttentionKL(), "kl"),
    (AttentionMSE(), "scores"),
    (AttentionMSE(of="distributions"), "distributions"),
    (Relations(relations=("qq",), heads=4), "qq"),
    (Relations(relations=("vv",), heads=4), "vv"),
    (Relations(relations=("kv",), heads=4), "kv"),
]
ON_DOCUMENTS = [(Similarity(), "similarity"), (RelationalDistance(), "rkd_distance"), (RelationalAngle(), "rkd_angle")]


@pytest.fixture(scope="module")
def formulas() -> ModuleType:
    spec = importlib.util.spec_from_file_location("golden_terms", GOLDEN_FOLDER / "terms.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def layer(values: dict) -> Layer:
    return Layer({part: torch.tensor(states) for part, states in values.items()}, heads=2)


def map_view(student: Layer, teachers: int = 1, segments: Tensor = SEGMENTS) -> AttentionView:
    return AttentionView(segments, ((student, tuple(layer(values) for values in LAYERS["teachers"][:teachers])),))


def document_view(student: Tensor, teacher: Tensor, group: Tensor | None = None) -> DocumentView:
    group = torch.zeros(len(student), dtype=torch.int64) if group is None else group
    return DocumentView(((student, teacher),), group, tuple(members_of(group)))


@pytest.mark.parametrize(("term", "name"), ON_TOKENS, ids=lambda part: getattr(part, "kind", part))
def test_terms_on_tokens_are_the_papers_and_sum_over_pairs(term: TokenTerm, name: str) -> None:
    pair = torch.tensor(GOLDEN["student"]), torch.tensor(GOLDEN["teacher"])
    expected = torch.tensor(GOLDEN[name])
    values = term(TokenView((pair,)))
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(term(TokenView((pair, pair))), 2 * expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("term", "name", "teachers"),
    [(term, name, teachers) for term, name in ON_MAPS for teachers in (1, 2) if teachers == 1 or f"{name} of a mean" in LAYERS],
    ids=lambda part: getattr(part, "kind", part),
)
def test_terms_on_maps_are_the_papers_within_each_document(term: AttentionTerm, name: str, teachers: int) -> None:
    values = term(map_view(layer(LAYERS["student"]), teachers))
    expected = torch.tensor(LAYERS[name if teachers == 1 else f"{name} of a mean"])
    torch.testing.assert_close(values[REAL], expected[REAL], rtol=1e-4, atol=1e-6)


def test_relations_are_summed_and_each_model_may_have_a_width_of_its_own() -> None:
    student = layer(LAYERS["student"])
    total = Relations(relations=("qq", "vv"), heads=4)(map_view(student))
    torch.testing.assert_close(total[REAL], (torch.tensor(LAYERS["qq"]) + torch.tensor(LAYERS["vv"]))[REAL], rtol=1e-4, atol=1e-6)
    narrow = Layer({part: states[..., :4] for part, states in student.states.items()}, heads=1)
    assert Relations(heads=2)(map_view(narrow)).shape == SEGMENTS.shape


@pytest.mark.parametrize(("term", "name"), ON_DOCUMENTS, ids=lambda part: getattr(part, "kind", part))
def test_terms_on_documents_are_the_papers_for_students_of_any_width(term: DocumentTerm, name: str) -> None:
    values = term(document_view(torch.tensor(DOCUMENTS["student"]), torch.tensor(DOCUMENTS["teacher"])))
    torch.testing.assert_close(values, torch.tensor(DOCUMENTS[name]), rtol=1e-5, atol=1e-6)


def test_the_contrastive_term_is_the_papers() -> None:
    view = document_view(torch.tensor(DOCUMENTS["student"]), torch.tensor(DOCUMENTS["teacher"])[:, :4])
    torch.testing.assert_close(Contrastive(temperature=0.5)(view), torch.tensor(DOCUMENTS["contrastive"]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("term", "name"), [*ON_DOCUMENTS, (Contrastive(temperature=0.5), "contrastive")], ids=lambda p: getattr(p, "kind", p)
)
def test_documents_are_compared_with_their_own_group_alone(term: DocumentTerm, name: str) -> None:
    """Two groups, interleaved: each gives what it gives by itself."""
    ours, theirs = torch.tensor(DOCUMENTS["student"]), torch.tensor(DOCUMENTS["teacher"])
    theirs = theirs[:, :4] if name == "contrastive" else theirs
    double = [torch.stack([a, a.flip(0)], dim=1).flatten(0, 1) for a in (ours, theirs)]
    values = term(document_view(*double, torch.tensor([0, 1] * 5)))
    expected = torch.tensor(DOCUMENTS[name])
    torch.testing.assert_close(values, torch.stack([expected, expected.flip(0)], dim=1).flatten(), rtol=1e-5, atol=1e-6)


def check_gradient(value: Callable[[Tensor], Tensor], formula: Callable[[list], float], at: Tensor) -> None:
    """Central differences of an independent float64 formula, step 1e-5, at some twenty numbers, against autograd in fp32."""
    student = at.clone().requires_grad_()
    value(student).sum().backward()
    step = 1e-5
    for place in range(0, at.numel(), max(1, at.numel() // 20)):
        moved = []
        for sign in (1, -1):
            flat = at.double().flatten()
            flat[place] += sign * step
            moved.append(formula(flat.reshape(at.shape).tolist()))
        expected = (moved[0] - moved[1]) / (2 * step)
        assert float(student.grad.flatten()[place]) == pytest.approx(expected, rel=1e-3, abs=1e-5)


@pytest.mark.parametrize(("term", "name"), ON_TOKENS[:4], ids=lambda part: getattr(part, "kind", part))
def test_gradients_on_tokens_are_the_finite_differences(formulas: ModuleType, term: TokenTerm, name: str) -> None:
    teacher = GOLDEN["teacher"]
    formula = {"pkd": formulas.patient}.get(name) or getattr(formulas, name)
    check_gradient(
        lambda student: term(TokenView(((student, torch.tensor(teacher)),))),
        lambda student: sum(formula(s, t) for s, t in zip(student, teacher, strict=True)),
        torch.tensor(GOLDEN["student"]),
    )


@pytest.mark.parametrize("part", ["queries", "keys", "values"])
@pytest.mark.parametrize("teachers", [1, 2])
@pytest.mark.parametrize(
    ("term", "of"), [(AttentionKL(), "kl"), (AttentionMSE(), "scores"), (AttentionMSE(of="distributions"), "distributions")]
)
def test_gradients_on_attention_are_the_finite_differences(
    formulas: ModuleType, monkeypatch: pytest.MonkeyPatch, term: AttentionTerm, of: str, teachers: int, part: str
) -> None:
    """Block by block: one map of 6 x 6 at a time, so that four blocks are made and dropped."""
    if part == "values":
        left = right = "values"
        term = Relations(relations=("vv",))
        of = "kl"
    else:
        left, right = "queries", "keys"
    monkeypatch.setitem(attention_blocks.BLOCK_BYTES, "cpu", 1)
    own, theirs = LAYERS["student"], LAYERS["teachers"][:teachers]

    def value(states: Tensor) -> Tensor:
        student = layer(own)
        return term(map_view(Layer(dict(student.states) | {part: states}, 2), teachers))[REAL]

    def formula(states: list) -> float:
        found = formulas.maps(own | {part: states}, theirs, left, right, 2, LAYERS["segments"], of)
        return sum(map(sum, found))

    check_gradient(value, formula, torch.tensor(own[part]))


@pytest.mark.parametrize(
    ("term", "name"), [*ON_DOCUMENTS, (Contrastive(temperature=0.5), "contrastive")], ids=lambda p: getattr(p, "kind", p)
)
def test_gradients_on_documents_are_the_finite_differences(formulas: ModuleType, term: DocumentTerm, name: str) -> None:
    teacher = [t[:4] for t in DOCUMENTS["teacher"]]
    more = (0.5,) if name == "contrastive" else ()
    check_gradient(
        lambda student: term(document_view(student, torch.tensor(teacher))),
        lambda student: sum(getattr(formulas, name)(student, teacher, *more)),
        torch.tensor(DOCUMENTS["student"]),
    )


def test_every_term_is_zero_when_student_equals_teacher_and_stays_there() -> None:
    states = torch.tensor(GOLDEN["teacher"])
    own = {part: torch.tensor(values).requires_grad_() for part, values in LAYERS["teachers"][0].items()}
    documents = torch.tensor(DOCUMENTS["teacher"])
    for term, _ in ON_TOKENS:
        assert float(term(TokenView(((states, states),))).abs().max()) < 1e-6, term.kind
    for term, _ in ON_MAPS:
        values = term(map_view(Layer(own, 2)))
        assert float(values.detach().abs().max()) < 1e-6, term.kind
        values.sum().backward()
    for term, _ in ON_DOCUMENTS:
        assert float(term(document_view(documents, documents)).abs().max()) < 1e-6, term.kind
    assert max(float(value.grad.abs().max()) for value in own.values()) < 1e-5


@pytest.mark.parametrize("block_bytes", [1, 4 * 36 * 3, 1 << 20])
def test_blocks_of_any_size_give_the_same_values_and_gradients(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setitem(attention_blocks.BLOCK_BYTES, "cpu", block_bytes)
    student = {part: torch.tensor(values).requires_grad_() for part, values in LAYERS["student"].items()}
    values = Relations(relations=("qq", "kv"), heads=4)(map_view(Layer(student, 2)))
    values[REAL].sum().backward()
    scores = {}
    for part, states in student.items():
        leaf = states.detach().clone().requires_grad_()
        scores[part] = leaf
    whole = torch.zeros(())
    for left, right in (("queries", "queries"), ("keys", "values")):
        allowed = (SEGMENTS[:, :, None] == SEGMENTS[:, None, :])[:, None]
        teacher = layer(LAYERS["teachers"][0]).states
        logs = []
        for states in (scores, teacher):
            a, b = (states[part].unflatten(-1, (4, 2)).transpose(1, 2) for part in (left, right))
            logs.append((a @ b.mT / 2**0.5).masked_fill(~allowed, -1e30).log_softmax(-1))
        whole = whole + (logs[1].exp() * (logs[1] - logs[0])).sum(-1).mean(1)[REAL].sum()
    whole.backward()
    assert float(values[REAL].sum().detach()) == pytest.approx(float(whole.detach()), rel=1e-5)
    for part, states in student.items():
        torch.testing.assert_close(states.grad, scores[part].grad, rtol=1e-4, atol=1e-6)


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation gave while inside, views included, backward pass too."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(made):
            if isinstance(leaf, Tensor):
                self.elements = max(self.elements, leaf.numel())
        return made


@pytest.mark.parametrize("term", [AttentionKL(), AttentionMSE(), Relations(heads=24)], ids=lambda term: term.kind)
def test_no_more_than_a_block_of_maps_exists_at_a_time(monkeypatch: pytest.MonkeyPatch, term: AttentionTerm) -> None:
    """4 rows x 12 heads of 64 x 64 would be 196,608 numbers; blocks of three maps are 12,288, forward and backward."""
    monkeypatch.setitem(attention_blocks.BLOCK_BYTES, "cpu", 3 * 64 * 64 * 4)
    draw = torch.Generator().manual_seed(1)
    student, teacher = (
        {part: torch.randn(4, 64, 24, generator=draw, requires_grad=wanted) for part in ("queries", "keys", "values")}
        for wanted in (True, False)
    )
    with Largest() as largest:
        term(AttentionView(torch.ones(4, 64, dtype=torch.int64), ((Layer(student, 12), (Layer(teacher, 12),)),))).sum().backward()
    assert student["keys"].grad is not None
    assert largest.elements == 3 * 64 * 64


def test_no_more_than_a_block_of_angles_exists_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Directions between 40 documents would be 40 x 40 x 16 numbers; two anchors at a time are 2 x 40 x 40 cosines at most."""
    monkeypatch.setattr(documents, "ANGLE_BLOCK_BYTES", 2 * 40 * 16 * 4)
    student, teacher = torch.randn(40, 16, generator=torch.Generator().manual_seed(1), requires_grad=True), torch.randn(40, 16)
    with Largest() as largest:
        RelationalAngle()(document_view(student, teacher)).sum().backward()
    assert largest.elements == 2 * 40 * 40


def test_one_token_and_no_document_are_enough() -> None:
    one = Layer({part: torch.ones(1, 1, 4) for part in ("queries", "keys", "values")}, 2)
    view = AttentionView(torch.ones(1, 1, dtype=torch.int64), ((one, (one,)),))
    assert AttentionKL()(view).tolist() == [[0.0]]
    for term in (*(t for t, _ in ON_DOCUMENTS), Contrastive()):
        for count in (0, 1):
            values = term(document_view(torch.ones(count, 4), torch.ones(count, 4)))
            assert values.shape == (count,)
            assert torch.isfinite(values).all()


def test_documents_are_pooled_over_their_own_tokens() -> None:
    states, documents = torch.arange(24.0).reshape(2, 6, 2), documents_of(SEGMENTS, torch.device("cpu"))
    assert first_tokens(SEGMENTS).nonzero().tolist() == [[0, 0], [0, 3], [1, 0], [1, 2], [1, 3]]
    assert pooled(states, SEGMENTS, documents, "first")[:, 0].tolist() == [0, 6, 12, 16, 18]
    assert pooled(states, SEGMENTS, documents, "mean")[:, 0].tolist() == [2, 7, 13, 16, 20]
    assert groups(SEGMENTS, None).tolist() == [0] * 5
    assert groups(SEGMENTS, 1).tolist() == [0, 0, 1, 1, 1]
    assert with_partners(groups(SEGMENTS, 1), 2).tolist() == [False, False, True, True, True]


SHAPE, NARROW = EncoderShape(12, 768, 12), EncoderShape(6, 384, 12)


@pytest.mark.parametrize(
    ("term", "student", "teacher", "line"),
    [
        (
            HiddenMSE(),
            NARROW,
            SHAPE,
            r"objective \(hidden_mse\): expected a student of the teacher's width 768, got 384; add projection: shared",
        ),
        (Hints(projection="none"), NARROW, SHAPE, r"expected each or shared, for a hint has a regressor, got none; or use hidden_mse"),
        (AttentionKL(), EncoderShape(6, 768, 8), SHAPE, "expected a student of the teacher's 12 attention heads, got 8; use relations"),
        (
            AttentionMSE(),
            NARROW,
            EncoderShape(12, 768, 12, "modernbert", False),
            "expected a teacher whose attention scores .* got modernbert",
        ),
        (
            Relations(),
            EncoderShape(6, 384, 6),
            SHAPE,
            "expected a number where student and teacher have different heads, 6 and 12, got null",
        ),
        (
            Relations(heads=16),
            EncoderShape(6, 312, 12),
            SHAPE,
            "expected a number that divides the student's width 312, got 16; choose another",
        ),
        (Patient(), EncoderShape(1, 768, 12), SHAPE, "expected a student of at least 2 layers for skip, got 1"),
        (HiddenMSE(layer_map="cka"), SHAPE, SHAPE, "expected the layers that cka stands for, got none"),
        (HiddenMSE(), EncoderShape(24, 768, 12), SHAPE, "expected a student of at most 12 layers, the teacher's, for uniform, got 24"),
        (HiddenMSE(), SHAPE, None, "expected a teacher, got none"),
    ],
)
def test_encoders_that_cannot_satisfy_a_term_are_one_line(
    term: Term, student: EncoderShape, teacher: EncoderShape | None, line: str
) -> None:
    with pytest.raises(KdError, match=line) as caught:
        term.for_encoders(student, teacher, f"objective ({term.kind})")
    assert "\n" not in str(caught.value)


def test_a_term_keeps_only_what_it_looks_at() -> None:
    fitted = Relations(relations=("qk",), heads=12, layer_map=[{"student": -1, "teacher": [9, 10]}]).for_encoders(NARROW, SHAPE, "")
    assert fitted.student_states() == {StateKey("queries", 5), StateKey("keys", 5)}
    assert fitted.teacher_states() == {StateKey(part, layer) for part in ("queries", "keys") for layer in (9, 10)}
    assert EmbeddingMSE(projection="shared").for_encoders(NARROW, SHAPE, "").teacher_states() == {StateKey("embeddings", 0)}


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "relations", "relations": ["qx"]},
        {"kind": "relations", "relations": []},
        {"kind": "relations", "heads": 0},
        {"kind": "contrastive", "temperature": 0},
        {"kind": "rkd_angle", "group_rows": 0},
        {"kind": "hints", "layer_map": []},
        {"kind": "pkd", "layer_map": "middle"},
        {"kind": "hints", "layer_map": [{"student": 0, "teacher": []}]},
    ],
)
def test_settings_that_mean_nothing_are_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Term).validate_python(wrong)
