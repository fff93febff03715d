"""Schedules against numbers by hand, and what cannot be a schedule."""

import pytest
from pydantic import TypeAdapter, ValidationError

from kd.terms import SoftTargets
from kd.terms.schedules import Ramp, Steps, bounds, resolved, schedules


def values(schedule: dict[str, object], updates: int) -> list[float]:
    made = TypeAdapter(Ramp | Steps).validate_python(schedule)
    made.check(updates)
    return [made.value(update, updates) for update in range(updates)]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"schedule": "linear", "from": 0, "to": 4}, [0, 1, 2, 3, 4]),
        ({"schedule": "linear", "from": 4, "to": 2, "start": 0.2, "end": 0.8}, [4, 4, 3, 2, 2]),
        ({"schedule": "linear", "from": 4, "to": 2, "start": 0, "end": 3}, [4, 3, 2, 2, 2]),
        ({"schedule": "linear", "from": 5, "to": 1, "end": 2}, [5, 1, 1, 1, 1]),
        ({"schedule": "linear", "from": 5, "to": 1, "start": 2, "end": 3}, [5, 5, 1, 1, 1]),
        ({"schedule": "cosine", "from": 2, "to": 0}, [2, 1 + 0.5**0.5, 1, 1 - 0.5**0.5, 0]),
        ({"schedule": "constant", "from": 6, "warmup": 3}, [2, 4, 6, 6, 6]),
        ({"schedule": "constant", "from": 6, "warmup": 1}, [6, 6, 6, 6, 6]),
        ({"schedule": "linear", "from": 6, "to": 0, "warmup": 2, "end": 5}, [3, 6, 6, 3, 0]),
        ({"schedule": "linear", "from": 6, "to": 2, "warmup": 0.4}, [3, 6, 6, 4, 2]),
        ({"schedule": "steps", "values": [4, 2, 1], "at": [0.4, 4]}, [4, 4, 2, 2, 1]),
        ({"schedule": "steps", "values": [0, 1], "at": [0.6]}, [0, 0, 0, 1, 1]),
    ],
)
def test_a_schedule_has_these_numbers_in_a_run_of_five_updates(schedule, expected):
    assert values(schedule, 5) == pytest.approx(expected, abs=1e-12)


def test_the_ends_of_a_ramp_are_exact_and_a_share_keeps_its_place_in_any_run():
    for updates in (7, 100, 12345):
        ramp = Ramp.model_validate({"schedule": "cosine", "from": 0.3, "to": 0.1, "start": 0.1, "end": 0.9})
        assert ramp.value(0, updates) == ramp.value(round(0.1 * updates), updates) == pytest.approx(0.3, abs=1e-15)
        assert ramp.value(round(0.9 * updates) - 1, updates) == ramp.value(updates - 1, updates) == 0.1
        assert ramp.value(updates // 2, updates) == pytest.approx(0.2, abs=0.3 / updates)


def test_a_term_with_schedules_is_the_same_term_with_numbers_at_an_update():
    term = SoftTargets.model_validate({"weight": {"schedule": "linear", "from": 0, "to": 1}, "temperature": 3, "positions": "masked"})
    assert resolved(term, 2, 5) == SoftTargets(weight=0.5, temperature=3, positions="masked")
    assert set(schedules(term)) == {"weight"}
    assert bounds(term.weight) == (0.0, 1.0)
    plain = SoftTargets(temperature=3)
    assert resolved(plain, 2, 5) is plain
    assert SoftTargets.model_validate(term.model_dump(mode="json")) == term


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"temperature": {"schedule": "linear", "from": 2, "to": 0}}, "expected numbers greater than 0 on the whole schedule, got 0"),
        ({"temperature": {"schedule": "steps", "values": [2, -1], "at": [0.5]}}, "expected numbers greater than 0 .*, got -1"),
        ({"weight": {"schedule": "linear", "from": -1, "to": 1}}, "greater than or equal to 0 on the whole schedule, got -1"),
        ({"weight": {"schedule": "linear", "from": 0, "to": 1, "start": 0.6, "end": 0.5}}, "after start, got start 0.6 and end 0.5"),
        ({"weight": {"schedule": "linear", "from": 0, "to": 1, "start": 30, "end": 20}}, "after start, got start 30 and end 20"),
        ({"weight": {"schedule": "linear", "from": 0}}, "to: expected a value for linear, got none"),
        ({"weight": {"schedule": "constant", "from": 1, "end": 0.5}}, "expected from and perhaps warmup for constant"),
        ({"weight": {"schedule": "linear", "from": 0, "to": 1, "end": 2.5}}, "end: expected a share up to 1 or a whole number"),
        ({"weight": {"schedule": "constant", "from": 1, "warmup": 2.5}}, "warmup: expected a share below 1 or a whole number of updates"),
        ({"weight": {"schedule": "steps", "values": [1, 2], "at": [0.2, 0.4]}}, "values: expected 3, one more than at has, got 2"),
        ({"weight": {"schedule": "square", "from": 0, "to": 1}}, "does not match any of the expected tags"),
        ({"weight": True}, "weight"),
    ],
)
def test_what_cannot_be_a_schedule_is_refused_with_a_line(settings, line):
    with pytest.raises(ValidationError, match=line):
        SoftTargets.model_validate(settings, strict=True)


@pytest.mark.parametrize(
    ("schedule", "updates"),
    [
        ({"schedule": "linear", "from": 0, "to": 1, "end": 50}, 20),
        ({"schedule": "linear", "from": 0, "to": 1, "start": 30}, 20),
        ({"schedule": "linear", "from": 0, "to": 1, "start": 0.5, "end": 8}, 20),
        ({"schedule": "cosine", "from": 1, "to": 0, "warmup": 0.5, "end": 0.4}, 20),
        ({"schedule": "steps", "values": [1, 2, 3], "at": [0.5, 8]}, 20),
        ({"schedule": "steps", "values": [1, 2], "at": [20]}, 20),
        ({"schedule": "steps", "values": [1, 2], "at": [0.001]}, 20),
    ],
)
def test_a_schedule_that_does_not_fit_into_the_run_is_refused(schedule, updates):
    with pytest.raises(ValueError, match=r"expected a schedule that ends after it starts|expected at to ascend within 20 updates"):
        values(schedule, updates)
