"""Durations and sizes as a person reads them."""

import pytest

from launcher.reporting.console import sentence
from launcher.text import duration, size


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (42.4, "42 s"),
        (59.6, "1 min 00 s"),
        (185, "3 min 05 s"),
        (3600, "1 h 00 min"),
        (7 * 3600 + 420, "7 h 07 min"),
        (3 * 86400 + 4 * 3600, "3 d 04 h"),
        (float("inf"), "unknown time"),
    ],
)
def test_a_duration_has_its_two_largest_units(seconds: float, text: str):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (1_250_000_000, "1.25 GB"), (999_900_000, "1,000 MB"), (66_985_530 * 12, "804 MB")],
)
def test_a_size_is_decimal_with_three_digits(count: int, text: str):
    assert size(count) == text


def test_a_sentence_leaves_out_what_a_line_does_not_have():
    assert sentence({"kind": "train", "update": 1200, "loss": 0.012345}) == "update 1,200  loss 0.01235"
    assert sentence({"kind": "heldout", "update": 1, "heldout_loss": 5.0}) == "update 1  held-out loss 5.000"


def test_an_event_is_its_name_and_message_and_says_nothing_twice():
    said = {"kind": "event", "update": 4}
    assert sentence(said | {"event": "started"}) == "started"
    assert sentence(said | {"event": "started", "message": "12 updates"}) == "started: 12 updates"
    assert sentence(said | {"event": "checkpoint", "message": "checkpoint after update 4 written"}) == "checkpoint after update 4 written"
    assert sentence(said | {"event": "skipped_update", "message": "update 4: not finite"}) == "skipped update: update 4: not finite"


def test_skipped_updates_show_only_when_there_are_some():
    assert "skipped" not in sentence({"kind": "train", "update": 1, "loss": 1.0, "skipped_updates": 0})
    assert "3 skipped" in sentence({"kind": "train", "update": 1, "loss": None, "skipped_updates": 3})


def test_a_line_names_its_phase():
    assert sentence({"kind": "train", "update": 3, "updates": 9, "phase": "hints", "loss": 1.0}) == "update 3/9  hints  loss 1.000"
