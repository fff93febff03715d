"""Tables of a task's data: rows, labels with counts, lengths, and every finding."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from data_shards.tasks.encoding.encoded import EncodedTask
from data_shards.tasks.labels import names_in
from data_shards.tasks.splits import TaskData

PERCENTILES = (50, 90, 99, 100)


@dataclass(frozen=True)
class SplitSummary:
    """Numbers of one split.

    labels: name -> rows (of tagging: words).
    majority: share of the most frequent label, the score of a constant prediction; None if labels have no names.
    targets: (least, mean, greatest) of a regression.
    lengths: percentile -> tokens, after cutting; empty if not encoded.
    """

    split: str
    rows: int
    labels: dict[str, int]
    majority: float | None
    targets: tuple[float, float, float] | None
    lengths: dict[int, int]


@dataclass(frozen=True)
class TaskSummary:
    """Numbers of every split, and the lines about what was dropped, cut, converted or guessed."""

    splits: tuple[SplitSummary, ...]
    lines: tuple[str, ...]


def describe(data: TaskData, encoded: Mapping[str, EncodedTask] | None = None) -> TaskSummary:
    """The output of `stillhouse task data`. encoded: split -> its rows; without them the summary has no lengths."""
    encoded = encoded or {}
    summaries, lines = [], data.report.lines()
    for split, examples in data.splits.items():
        counts: dict[str, int] = {}
        targets = majority = None
        if examples.labels is not None and examples.kind == "regression":
            values = np.asarray(examples.labels)
            targets = (float(values.min()), float(values.mean()), float(values.max()))
        elif examples.labels is not None and data.labels is not None:
            seen = Counter(names_in(examples))
            counts = {name: seen[name] for name in data.labels}
            majority = max(counts.values()) / max(1, sum(counts.values())) if examples.kind != "multi_label" else None
        elif examples.labels is not None:
            answered = sum(bool(row) for row in examples.labels)
            counts = {"answer": answered, "no answer": len(examples) - answered}
        lengths = {}
        if split in encoded:
            task = encoded[split]
            lengths = {percent: int(np.percentile(task.lengths, percent, method="higher")) for percent in PERCENTILES}
            lines += task.counts.lines(split)
        summaries.append(SplitSummary(split, len(examples), counts, majority, targets, lengths))
    return TaskSummary(tuple(summaries), tuple(lines))
