"""Counts of events continue from metrics.jsonl."""

from launcher.reporting.event_counts import EventCounts


def event(name: str) -> dict[str, object]:
    return {"kind": "event", "update": 0, "event": name}


def test_a_new_run_has_no_restart_and_a_resumed_one_has_those_of_its_file():
    assert EventCounts().values == {"restarts": 0, "roll_backs": 0, "stragglers": 0}
    file = [event("started"), {"kind": "train", "update": 1}, event("resumed"), event("rolled_back"), event("straggler")]
    counts = EventCounts(file)
    counts.count(event("resumed"))
    counts.count(event("straggler"))
    assert counts.values == {"restarts": 2, "roll_backs": 1, "stragglers": 2}
