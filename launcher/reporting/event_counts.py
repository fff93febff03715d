"""Counts of a run's events, for its train lines. metrics.jsonl is where they come from, so a continued run counts on."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

STARTS = ("started", "resumed")
COUNTED = {"roll_backs": "rolled_back", "stragglers": "straggler"}
"""Field of a train line -> the event that it counts."""


class EventCounts:
    """The number of events of each name so far."""

    def __init__(self, lines: Iterable[Mapping[str, Any]] = ()) -> None:
        """lines: those that metrics.jsonl holds."""
        self._events: Counter[str] = Counter()
        for line in lines:
            self.count(line)

    def count(self, line: Mapping[str, Any]) -> None:
        """Take a report line into account."""
        if line.get("kind") == "event":
            self._events[str(line.get("event"))] += 1

    @property
    def values(self) -> dict[str, int]:
        """The fields of a train line."""
        starts = sum(self._events[name] for name in STARTS)
        return {"restarts": max(0, starts - 1), **{field: self._events[event] for field, event in COUNTED.items()}}
