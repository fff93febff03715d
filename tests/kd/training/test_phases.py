"""Phases: their borders by hand, what trains in them, what cannot be; and runs of three phases against plain torch, killed at borders."""

import json

import pytest
import torch
import torch.nn.functional as F
from phases_on_ranks import COURSES, UPDATES
from torch import nn
from trainer_on_ranks import OPTIMIZER, ROWS, row
from whole_outputs import whole

from kd.batch import IGNORED
from kd.errors import KdError
from kd.models.config import quiet_transformers
from kd.models.encoder import Encoder
from kd.models.loading import load_mlm
from kd.terms import MaskedLM
from kd.terms.schedules import OptimizerSettings
from kd.training.phases import PhaseSettings, check_layers, part_of, phase_at, phases_of

RUN = OptimizerSettings(learning_rate=1.0, warmup=0, schedule="linear")


def made(lengths: list[dict[str, float]], updates: int = 10):
    return phases_of([PhaseSettings(name=f"p{i}", **length) for i, length in enumerate(lengths)], [MaskedLM()], RUN, updates)


@pytest.mark.parametrize(
    ("lengths", "borders"),
    [
        ([{"updates": 4}, {"updates": 6}], [(0, 4), (4, 10)]),
        ([{"share": 0.3}, {}], [(0, 3), (3, 10)]),
        ([{"updates": 1}, {}, {"share": 0.5}], [(0, 1), (1, 5), (5, 10)]),
        ([{"share": 1 / 3}] * 3, [(0, 3), (3, 7), (7, 10)]),
    ],
)
def test_phases_fill_the_run_one_after_the_other(lengths, borders):
    phases = made(lengths)
    assert [(phase.first, phase.end) for phase in phases] == borders
    assert [phase_at(phases, update).name for update in range(10)] == [
        f"p{i}" for i, (first, end) in enumerate(borders) for _ in range(first, end)
    ]


def test_a_run_without_phases_is_one_phase_without_a_name():
    (whole_run,) = phases_of([], [MaskedLM()], RUN, 7)
    assert (whole_run.name, whole_run.first, whole_run.end) == ("", 0, 7)


@pytest.mark.parametrize(
    ("lengths", "line"),
    [
        ([{"updates": 6}, {"updates": 6}], "within the run's 10 updates, got 6 \\+ 6 = 12: they overlap"),
        ([{"share": 0.7}, {"share": 0.7}], "within the run's 10 updates, got 7 \\+ 7 = 14: they overlap"),
        ([{"updates": 3}, {"share": 0.5}], "that fill the run's 10 updates, got 3 \\+ 5 = 8"),
        ([{}, {"updates": 3}, {}], "a length for all but one of them, got none for p0, p2"),
        ([{"updates": 10}, {}], "at least one update for phase p1, got none of 10"),
        ([{"share": 0.01}, {}], "at least one update for phase p0"),
    ],
)
def test_phases_that_overlap_or_do_not_add_up_are_refused(lengths, line):
    with pytest.raises(KdError, match=line):
        made(lengths)


def test_a_phase_with_an_optimizer_has_its_own_course_and_one_without_follows_the_runs():
    first, second = phases_of(
        [PhaseSettings(name="a", updates=4), PhaseSettings(name="b", optimizer={"learning_rate": 8.0, "warmup": 2})], [MaskedLM()], RUN, 10
    )
    assert [first.learning_rate(u) for u in range(4)] == pytest.approx([1.0, 0.9, 0.8, 0.7])
    assert [second.learning_rate(u) for u in range(4, 10)] == pytest.approx([4, 8, 8, 6, 4, 2])
    assert second.optimizer.weight_decay == RUN.weight_decay


def test_a_warmup_that_is_longer_than_its_course_is_refused_by_its_key():
    long = RUN.model_copy(update={"warmup": 11})
    with pytest.raises(KdError, match=r"^optimizer.warmup: expected at most 10 updates, the length of its course, got 11; shorten it$"):
        phases_of([], [MaskedLM()], long, 10)
    assert phases_of([], [MaskedLM()], RUN.model_copy(update={"warmup": 10}), 10)[0].learning_rate(9) == 1.0
    halves = [PhaseSettings(name="a", updates=4), PhaseSettings(name="b", optimizer={"warmup": 7})]
    with pytest.raises(KdError, match=r"^phases.1.optimizer.warmup: expected at most 6 updates"):
        phases_of(halves, [MaskedLM()], RUN, 10)


@pytest.mark.parametrize(
    ("terms", "line"),
    [
        ([{"schedule": "linear", "from": 0, "to": 1}], "objective: expected a weight above 0 in every update, got none in update 1;"),
        ([{"schedule": "linear", "from": 1, "to": 0, "end": 0.5}], "every update, got none in update 5;"),
        (
            [{"schedule": "steps", "values": [1, 0], "at": [0.4]}, {"schedule": "linear", "from": 0, "to": 1, "start": 0.6}],
            "every update, got none in update 5;",
        ),
        ([{"schedule": "linear", "from": 1, "to": 0, "end": 50}, 1.0], "objective.0.weight: expected a schedule that ends after it starts"),
        ([0.0], "expected at least one term with a weight above 0"),
    ],
)
def test_updates_without_anything_to_learn_are_found_before_the_run(terms, line):
    with pytest.raises(KdError, match=line):
        phases_of([], [MaskedLM.model_validate({"weight": weight}) for weight in terms], RUN, 10)


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_every_weight_belongs_to_one_part(make_model, family):
    encoder = Encoder(make_model(family))
    parts: dict[str, int] = {}
    for name, weight in encoder.named_parameters():
        part, layer = part_of(encoder, name)
        parts[part if layer is None else f"{part} {layer}"] = parts.get(part if layer is None else f"{part} {layer}", 0) + weight.numel()
    size = lambda module: sum(weight.numel() for weight in module.parameters())  # noqa: E731
    assert [parts[f"layers {i}"] for i in range(4)] == [size(layer) for layer in encoder.layer_modules]
    head = [encoder.part(encoder.family.head_dense), encoder.part(encoder.family.head_norm)]
    assert parts["head"] == sum(map(size, head)) + encoder.vocabulary
    assert parts["embeddings"] == size(encoder.base) - sum(map(size, encoder.layer_modules))
    assert part_of(encoder, "projections.hints.weight") == ("projections", None)


@pytest.mark.parametrize(
    ("trains", "freezes", "expected"),
    [
        (["all"], [], {"embeddings", "0", "1", "2", "3", "head"}),
        (["head"], [], {"head"}),
        (["layers 1..2", "head"], [], {"1", "2", "head"}),
        (["layers"], ["layers 3"], {"0", "1", "2"}),
        (["all"], ["embeddings", "layers 0..2"], {"3", "head"}),
    ],
)
def test_parts_are_named_by_what_trains_and_what_is_frozen(tiny_bert, trains, freezes, expected):
    (phase,) = phases_of([PhaseSettings(name="x", trains=trains, freezes=freezes)], [MaskedLM()], RUN, 5)
    found = [part_of(tiny_bert, name) for name, _ in tiny_bert.named_parameters() if phase.trainable(tiny_bert, name)]
    assert {part if layer is None else str(layer) for part, layer in found} == expected


def test_parts_that_are_not_there_are_refused(tiny_bert):
    with pytest.raises(ValueError, match=r"expected all, embeddings, layers, layers 0..2, head or projections, got layers 1-2"):
        PhaseSettings(name="x", trains=["layers 1-2"])
    for part in ("layers 4", "layers 2..7", "layers 3..1"):
        phases = phases_of([PhaseSettings(name="x", trains=[part])], [MaskedLM()], RUN, 5)
        with pytest.raises(KdError, match=rf"phases\.\d\.(trains|freezes): expected ascending layers from 0 to 3, got {part}"):
            check_layers(phases, tiny_bert)


def plain_phases(teacher: Encoder, student: Encoder) -> list[float]:
    """The three phases of phases_on_ranks.py as a textbook would write them, in one batch and whole logits; the losses."""
    trained = [
        lambda name: "vocab_transform" in name or "vocab_layer_norm" in name or "vocab_projector.bias" in name,
        lambda name: "layer.1." in name,
        lambda name: True,
    ]
    regressor = nn.Linear(32, 32)
    nn.init.eye_(regressor.weight)
    nn.init.zeros_(regressor.bias)
    state: dict[str, dict[str, torch.Tensor]] = {}
    losses, steps = [], 0
    for update in range(UPDATES):
        number = 0 if update < 2 else 1 if update == 2 else 2
        ids, labels, positions, segments = (torch.stack(c) for c in zip(*(row(update, slot) for slot in range(ROWS)), strict=True))
        mask = segments[:, None, :, None] == segments[:, None, None, :]
        real, masked = segments > 0, labels != IGNORED
        with torch.no_grad():
            teacher_logits, teacher_last = whole(teacher, ids, mask, positions)
        logits, last = whole(student, ids, mask, positions)
        mlm = F.cross_entropy(logits[masked], labels[masked])
        cosine = (1 - F.cosine_similarity(last[real], teacher_last[real], dim=-1)).mean()
        temperature = 4.0 if update == 3 else 2.0
        p = F.softmax(teacher_logits / temperature, -1)
        kl = temperature**2 * (p * (p.log() - F.log_softmax(logits / temperature, -1))).sum(-1)[real].mean()
        hints = 0.5 * (teacher_last[real] - regressor(last[real])).square().sum(-1).mean()
        loss = [(0.0 if update == 0 else 3.0) * cosine + mlm, hints, (1.0 if update == 3 else 5.0) * kl + mlm][number]
        if update == 2:  # a fresh optimizer
            state, steps = {}, 0
        if update == 3:  # goes on with what trained before
            state = {name: kept for name, kept in state.items() if trained[1](name)}
        student.zero_grad()
        loss.backward()
        own = {name: weight for name, weight in student.named_parameters() if trained[number](name)}
        own |= {f"regressor.{name}": weight for name, weight in regressor.named_parameters() if number == 1}
        gradients = {name: torch.zeros_like(weight) if weight.grad is None else weight.grad for name, weight in own.items()}
        norm = torch.sqrt(sum((gradient.double() ** 2).sum() for gradient in gradients.values()))
        steps += 1
        rate = COURSES[update]
        with torch.no_grad():
            for name, weight in own.items():
                gradient = gradients[name] * min(1.0, 0.5 / float(norm))
                kept = state.setdefault(name, {"m": torch.zeros_like(weight), "v": torch.zeros_like(weight)})
                first, second = OPTIMIZER.betas
                weight.mul_(1 - rate * (OPTIMIZER.weight_decay if weight.dim() >= 2 else 0.0))
                kept["m"] = first * kept["m"] + (1 - first) * gradient
                kept["v"] = second * kept["v"] + (1 - second) * gradient**2
                scale = (kept["v"] / (1 - second**steps)).sqrt() + OPTIMIZER.epsilon
                weight.sub_(rate * (kept["m"] / (1 - first**steps)) / scale)
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.slow
def test_three_phases_do_what_plain_torch_does_and_continue_bit_identically_around_their_borders(make_model, tmp_path, run_ranks):
    teacher, student = tmp_path / "teacher", tmp_path / "student"
    with quiet_transformers():
        make_model("bert", layers=3).save_pretrained(teacher)
        make_model("distilbert", seed=2, layers=2, dropout=0.0, attention_dropout=0.0).save_pretrained(student)
    losses = plain_phases(load_mlm(str(teacher)), load_mlm(str(student)).train())
    ways, result = "0-fp32,3-bf16", tmp_path / "result.json"  # one rank: tests/runs/test_phases.py
    run_ranks(2, "phases_on_ranks", result, teacher, student, tmp_path / "checkpoints", ways)
    report = json.loads(result.read_text())
    assert list(report) == ways.split(",")
    for where, seen in report.items():
        assert seen["losses"] == pytest.approx(losses, rel=2e-5 if "fp32" in where else 0.03), where
        assert seen["rates"] == pytest.approx(COURSES), where
        assert seen["phases"] == ["head", "head", "layer", "all", "all"], where
        assert seen["scheduled"] == [
            {"weight/cosine": 0.0},
            {"weight/cosine": 3.0},
            {},
            {"weight/soft_targets": 1.0, "temperature/soft_targets": 4.0},
            {"weight/soft_targets": 5.0, "temperature/soft_targets": 2.0},
        ], where
        assert seen["terms"] == [["mlm"], ["mlm", "cosine"], ["hints"], ["soft_targets", "mlm"], ["soft_targets", "mlm"]], where
        assert seen["moved"] == [["head"], ["head"], ["layers 1", "projections"], seen["moved"][3], seen["moved"][4]], where
        assert set(seen["moved"][4]) == {"embeddings", "head", "layers 0", "layers 1"}, where
        assert seen["moments"] == [["head"], ["head"], ["layers 1", "projections"], seen["moved"][3], seen["moved"][4]], where
        assert seen["continued"] == {"1": True, "2": True, "3": True}, where
        assert seen["grown"] < 10_000, f"{where}: engines of earlier phases are kept ({seen['grown']} bytes)"
