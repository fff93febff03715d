"""Phases and schedules in a configuration and in its plan: the words a user reads before anything runs."""

import pytest

from launcher.config.load import differences, dump_config, parse_config
from launcher.planning.plan import make_plan
from launcher.planning.table import rows

HEAD = "{name: head, share: 0.25, trains: [head], objective: [{kind: mlm}], optimizer: {learning_rate: 2.0e-3}}"
REST = "{name: rest, freezes: [embeddings, layers 0], optimizer_state: continue}"


def test_the_plan_shows_every_phase_with_its_updates_tokens_and_what_trains(make_config, corpus):
    plan = make_plan(make_config(f"phases=[{HEAD}, {REST}]"), 1)
    first, second = plan.phases
    assert (first.first, first.last, second.first, second.last) == (1, 3, 4, 12)
    assert first.tokens == round(3 * plan.tokens_per_update)
    assert first.tokens + second.tokens == pytest.approx(plan.tokens, abs=2)
    width, inner = 32, 64
    assert first.trainable == width * width + width + 2 * width + corpus.vocabulary  # transform, its norm, the decoder's bias
    layer = 4 * (width * width + width) + 2 * width * inner + inner + width + 4 * width
    assert second.trainable == first.trainable + layer  # of two layers the second
    assert plan.trainable == second.trainable < plan.student_parameters
    assert plan.memory.moments == 8 * second.trainable
    shown = dict(rows(plan))
    assert shown["phase 1: head"] == (
        f"updates 1 to 3, {first.tokens:,} tokens: mlm; {first.trainable:,} parameters train, learning rate 0.002"
    )
    assert shown["phase 2: rest"].endswith("learning rate 0.001, optimizer state: continue")
    assert "soft_targets, mlm, cosine" in shown["phase 2: rest"]


def test_a_run_without_phases_shows_none(make_config):
    assert not [name for name, _ in rows(make_plan(make_config(), 1)) if name.startswith("phase")]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["phases=[{name: a, updates: 9}, {name: b, updates: 9}]"], "phases: expected phases within the run's 12 updates, got 9 + 9 = 18"),
        (["phases=[{name: a, updates: 9}]"], "phases: expected phases that fill the run's 12 updates, got 9 = 9; lengthen one"),
        (["phases=[{name: a}, {name: a, share: 0.5}]"], "phases: expected a name of its own for each, got a, a; rename one"),
        (["phases=[{name: a, updates: 3, share: 0.5}]"], "phases.0.share: expected either updates or share, got both; keep one"),
        (["phases=[{name: a, trains: [layers 5]}]"], "phases.0.trains: expected ascending layers from 0 to 1, got layers 5; correct it"),
        (["phases=[{name: a, trains: [heads]}]"], "phases.0.trains.0: expected all, embeddings, layers, layers 0..2, head or projections"),
        (
            ["phases=[{name: a, trains: [head], freezes: [head]}]"],
            "phases.0.trains: expected something that trains in phase a, got nothing; name another part",
        ),
        (["phases=[{name: a, optimiser: {}}]"], "phases.0.optimiser: unknown key; did you mean optimizer?"),
        (["phases=[{name: a, objective: []}]", "objective=[]"], "objective: expected a value, got none; add it"),
        (
            ["objective.0.temperature={schedule: linear, from: 4, to: 1, start: 5, end: 40}"],
            "objective.0.temperature: expected a schedule that ends after it starts, within 12 updates, got 5 to 40; correct it",
        ),
        (
            ["phases=[{name: a, objective: [{kind: mlm, weight: {schedule: linear, from: 0, to: 1, ende: 2}}]}]"],
            "phases.0.objective.0.weight.ende: unknown key; did you mean end?",
        ),
        (
            ["phases=[{name: a, objective: [{kind: mlm, weight: {schedule: linear, from: 0, to: 1}}]}]"],
            "phases.0.objective: expected a weight above 0 in every update, got none in update 1 in phase a; raise one",
        ),
        (
            ["teacher=null", "student.init=x", "objective=[]", "phases=[{name: a, objective: [{kind: mlm}, {kind: cosine}]}]"],
            "teacher: expected a teacher for cosine, got null; name one, or drop the term",
        ),
    ],
)
def test_phases_that_cannot_be_are_one_line_before_a_weight_is_read(make_config, overrides, message):
    with pytest.raises(Exception, match=r".") as caught:
        make_plan(make_config(*overrides), 1)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_length_in_tokens_gives_the_phases_theirs_in_the_plan(make_config):
    plan = make_plan(make_config("train.updates=null", f"train.tokens={10 * 8 * 32}", "phases=[{name: a, share: 0.3}, {name: b}]"), 1)
    assert [(phase.first, phase.last) for phase in plan.phases] == [(1, 3), (4, 10)]
    with pytest.raises(Exception, match="that fill the run's 10 updates, got 3 = 3"):
        make_plan(make_config("train.updates=null", f"train.tokens={10 * 8 * 32}", "phases=[{name: a, share: 0.3}]"), 1)


def test_a_schedule_survives_the_run_folders_copy(make_config):
    made = make_config(f"phases=[{HEAD}, {REST}]", "objective.0.weight={schedule: cosine, from: 1, to: 0.5, end: 0.5}")
    assert parse_config(dump_config(made), "copy") == made
    changed = make_config(f"phases=[{HEAD}, {REST}]", "objective.0.weight={schedule: cosine, from: 1, to: 0.25, end: 0.5}")
    assert differences(made, changed) == ["objective.0.weight.to: 0.5 -> 0.25"]
