"""Checks of a task's splits against each other and against themselves: overlap, duplicates, empty rows, labels; and the held-out part."""

import hashlib
import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from data_shards.errors import DataError
from data_shards.tasks.examples import Examples
from data_shards.tasks.labels import label_names, names_in
from data_shards.tasks.presets import PRESETS
from data_shards.tasks.read import read_split
from data_shards.tasks.report import DataReport
from data_shards.tasks.settings import SPLITS, TaskDataSettings, listed
from stillhouse.digests import canonical_sha256

MANY = 50
"""More labels than this, with fewer than two rows each, are taken for a column of texts or numbers."""


@dataclass(frozen=True)
class TaskData:
    """The splits of a task that were given, checked. labels: names in order; None for regression and question answering."""

    settings: TaskDataSettings
    splits: dict[str, Examples]
    labels: list[str] | None
    report: DataReport = field(default_factory=DataReport)

    def digest(self) -> str:
        """sha256 of the label names and of every split's content. Hexadecimal."""
        return canonical_sha256([self.labels, {split: examples.digest() for split, examples in self.splits.items()}], ascii_only=True)


def read_task(settings: TaskDataSettings) -> TaskData:
    """Every split that the settings name, checked against the others. Without `dev`, dev_fraction of train becomes dev.

    Raises DataError for what cannot be used; everything else is in the report.
    """
    report = DataReport()
    _note_missing_files(settings, report)
    splits = {split: read_split(settings, split, report) for split in SPLITS if settings.paths(split)}
    splits = {split: _without_empty(examples, report) for split, examples in splits.items()}
    if "train" in splits:
        splits["train"] = _duplicates(splits["train"], report, settings.drop_duplicates)
        if "dev" not in splits and settings.dev_fraction:
            train, dev = hold_out(splits["train"], settings.dev_fraction, settings.split_seed)
            by = (
                f"by {settings.split_by}"
                if settings.split_by is not None
                else "by context"
                if settings.kind == "question_answering"
                else "by text"
            )
            report.note(f"dev: rows of train that became dev (dev_fraction), split {by}: {len(dev):,}")
            splits["train"], splits["dev"] = train, dev
    if settings.dev is not None and settings.dev_fraction:
        report.note("dev_fraction: not used, as dev is set")
    for split in ("dev", "test"):
        if split in splits:
            _duplicates(splits[split], report, drop=False)
            for other in ("train", "unlabelled"):
                if other in splits:
                    splits[other] = _overlap(splits[other], splits[split], report, settings.drop_overlap)
    ordered = {split: splits[split] for split in SPLITS if split in splits}
    labels = label_names(list(ordered.values()), settings.labels, report)
    _check_labels(ordered, labels, settings.labels, report)
    return TaskData(settings, ordered, labels, report)


def _note_missing_files(settings: TaskDataSettings, report: DataReport) -> None:
    """Reports splits that the preset has and its folder has not."""
    if settings.preset is None or settings.folder is None:
        return
    preset = PRESETS[settings.preset]
    if settings.train == preset.settings(settings.folder)["train"]:
        for split in preset.files[0]:
            if not settings.paths(split):
                report.note(f"{split}: left out, as {settings.folder} has no such files")


def hold_out(examples: Examples, fraction: float, seed: int, split: str = "dev") -> tuple[Examples, Examples]:
    """(the rest, about this fraction of the rows). Rows of one group, with the same text, or with the same context, stay together.

    Without groups, each label of a classification, and each range of targets of a regression, gives this fraction of its rows.
    A pure function of the rows' content and the seed: the order of the rows does not matter. Raises DataError if a part is empty.
    """
    grouped = examples.groups is not None
    by_context = examples.kind == "question_answering"
    keys = examples.groups or [json.dumps(inputs[-1:] if by_context else inputs) for inputs in examples.inputs()]
    sizes = Counter(keys)
    order = sorted(sizes, key=lambda key: (hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=16).digest(), key))
    if examples.labels is not None and not grouped and examples.kind in ("classification", "regression"):
        first: dict[str, Any] = {}
        for key, label in zip(keys, examples.labels, strict=True):
            first[key] = min(label, first.get(key, label))
        order.sort(key=lambda key: first[key])
        chosen = {key for number, key in enumerate(order) if int((number + 1) * fraction) > int(number * fraction)}
    else:
        chosen, count = set(), 0
        for key in order:
            if count + sizes[key] / 2 <= len(examples) * fraction:
                chosen.add(key)
                count += sizes[key]
    chosen = chosen or set(order[:1])
    if len(chosen) == len(sizes):
        raise DataError(
            f"dev_fraction: expected rows for train and dev, got {len(sizes)} groups for both; add rows, or name a file for dev"
        )
    held = [number for number, key in enumerate(keys) if key in chosen]
    rest = [number for number, key in enumerate(keys) if key not in chosen]
    return examples.take(rest), examples.take(held, split)


def _without_empty(examples: Examples, report: DataReport) -> Examples:
    """The rows with text. Empty rows of dev and test stay, so that a score counts the same rows as everybody's."""
    inputs = examples.inputs()
    full = [any(text.strip() for text in row) for row in inputs]
    empty = [place for place, has_text in zip(examples.places, full, strict=True) if not has_text]
    if examples.pairs is not None:
        half = [place for place, row in zip(examples.places, inputs, strict=True) if sum(not text.strip() for text in row) == 1]
        report.add(examples.split, "rows with one empty text of two", "kept", half)
    dropped = examples.split in ("train", "unlabelled")
    report.add(examples.split, "empty rows", "dropped" if dropped else "kept", empty)
    if not dropped or not empty:
        return examples
    if len(empty) == len(examples):
        raise DataError(f"{empty[0]}: expected rows with text in {examples.split}, got {len(empty):,} empty ones; check columns.text")
    return examples.take(number for number, has_text in enumerate(full) if has_text)


def _duplicates(examples: Examples, report: DataReport, drop: bool) -> Examples:
    """The rows, without those whose text is in an earlier row if `drop`."""
    first: dict[tuple[str, ...], int] = {}
    later, conflicting = [], []
    for number, inputs in enumerate(examples.inputs()):
        earlier = first.setdefault(inputs, number)
        if earlier != number:
            later.append(number)
            if examples.labels is not None and examples.labels[earlier] != examples.labels[number]:
                conflicting.append(number)
    action = "dropped (drop_duplicates)" if drop else "kept"
    report.add(examples.split, "duplicate rows", action, [examples.places[number] for number in later])
    report.add(
        examples.split,
        "rows with the text of an earlier row and another label",
        action,
        [examples.places[number] for number in conflicting],
    )
    if not drop or not later:
        return examples
    gone = set(later)
    return examples.take(number for number in range(len(examples)) if number not in gone)


def _overlap(train: Examples, scored: Examples, report: DataReport, drop: bool) -> Examples:
    """The training rows, without those whose text is also in a scored split if `drop`. Counts rows of the scored split."""
    own, other = train.inputs(), scored.inputs()
    in_train, in_scored = set(own), set(other)
    places = [place for place, inputs in zip(scored.places, other, strict=True) if inputs in in_train]
    action = f"dropped from {train.split} (drop_overlap)" if drop else "kept (drop_overlap drops them from train)"
    report.add(scored.split, f"rows that are also in {train.split}", action, places)
    if scored.kind == "question_answering" and train.pairs is not None and scored.pairs is not None:
        contexts = set(train.pairs)
        report.add(
            scored.split,
            f"rows with a context of {train.split}",
            "kept",
            [place for place, context in zip(scored.places, scored.pairs, strict=True) if context in contexts],
        )
    if not drop or not places:
        return train
    kept = [number for number, inputs in enumerate(own) if inputs not in in_scored]
    if not kept:
        raise DataError(f"{places[0]}: expected rows of {train.split} that are not in {scored.split}, got none; check the files")
    return train.take(kept)


def _check_labels(splits: dict[str, Examples], labels: list[str] | None, given: list[str] | None, report: DataReport) -> None:
    """Reports labels of one split only. Raises DataError for training data with a single label or target."""
    train = splits.get("train")
    if train is not None and train.kind == "regression" and len(set(train.labels or [])) == 1:
        raise DataError(
            f"{train.places[0]}: expected different targets in train, got {(train.labels or [0])[0]:g} in every row; check the column"
        )
    if labels is None:
        return
    if train is not None and train.kind == "classification" and given is None and len(labels) > MANY and 2 * len(labels) > len(train):
        raise DataError(
            f"{train.places[0]}: expected a few labels, got {len(labels):,} in {len(train):,} rows, such as {labels[0]!r:.40}; "
            "choose the column of the labels, set kind to regression, or list the names under labels"
        )
    seen = {split: Counter(names_in(examples)) for split, examples in splits.items() if examples.labels is not None}
    if train is not None and train.kind in ("classification", "tagging") and len(seen["train"]) == 1:
        raise DataError(
            f"{train.places[0]}: expected at least two labels in train, got {next(iter(seen['train']))} alone; check the column"
        )
    for split, counts in seen.items():
        missing = [name for name in labels if not counts[name]]
        others = [name for name in missing if any(other[name] for other in seen.values())]
        nowhere = [name for name in missing if name not in others]
        if others:
            report.note(f"{split}: no row has the label {listed(others)}, which other splits have")
        if nowhere and split == "train":
            report.note(f"labels: no split has a row with {listed(nowhere)}")
