"""Reads the files of a split as examples. A bad row is an error that names its place, or is dropped and counted."""

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from data_shards.errors import DataError
from data_shards.stream.counter_hash import permutation
from data_shards.tasks.examples import Examples
from data_shards.tasks.formats.conll import begins_inside, is_iob1, to_bio
from data_shards.tasks.formats.tables import Record
from data_shards.tasks.records import records
from data_shards.tasks.report import DataReport
from data_shards.tasks.rows import answers_of, class_name, number, several, tags_of, text_of, words_of
from data_shards.tasks.settings import TaskDataSettings, listed


@dataclass
class _Split:
    """The rows of a split while they are read."""

    texts: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    words: list[list[str]] = field(default_factory=list)
    labels: list[Any] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    places: list[str] = field(default_factory=list)
    bad: list[str] = field(default_factory=list)
    moved: list[str] = field(default_factory=list)


def read_split(settings: TaskDataSettings, split: str, report: DataReport) -> Examples:
    """The examples of one split, in the order of its files. Adds to the report what was dropped or converted.

    Rows of train and dev have labels; test has them for all rows or for none; unlabelled has none.
    Raises DataError for a bad row if on_bad_row is error, and for a split without rows.
    """
    read = _Split()
    if split == "unlabelled" and settings.unlabelled_columns is not None:
        columns = settings.unlabelled_columns
        header = settings.header or isinstance(columns.text, str)  # as in CoLA's test.tsv, beside a train.tsv without one
        settings = settings.model_copy(update={"columns": columns, "header": header})
    for record in records(settings, split, report):
        try:
            if isinstance(record, DataError):
                raise record
            _add(read, record, settings, split)
        except DataError as error:
            if settings.on_bad_row == "error":
                raise
            read.bad.append(str(error))
    report.add(split, "bad rows", "dropped (on_bad_row)", read.bad)
    report.add(split, "answers that start up to 3 characters beside answer_start", "moved", read.moved)
    if not read.texts:
        got = f"bad rows alone, the first: {read.bad[0]}" if read.bad else "none; check the file"
        raise DataError(f"{', '.join(settings.paths(split))}: expected rows of {split}, got {got}")
    examples = Examples(
        split,
        settings.kind,
        read.texts,
        read.pairs if _has_pairs(settings) else None,
        read.words if settings.kind == "tagging" else None,
        _labels(read, split),
        read.ids,
        read.groups or None,
        read.places,
    )
    if settings.max_rows is not None and settings.max_rows < len(examples):
        report.note(f"{split}: sample of the rows (max_rows): {settings.max_rows:,} of {len(examples):,}")
        examples = examples.take(np.sort(permutation(len(examples), settings.split_seed)[: settings.max_rows]).tolist())
    return _with_bio(examples, settings, report) if settings.kind == "tagging" and examples.labels is not None else examples


def _has_pairs(settings: TaskDataSettings) -> bool:
    return settings.kind == "question_answering" or (settings.kind != "tagging" and settings.columns.text_pair is not None)


def _labels(read: _Split, split: str) -> list[Any] | None:
    """The labels, or None for a split without. Raises DataError where some rows have one and others have none."""
    missing = [place for place, label in zip(read.places, read.labels, strict=True) if label is None]
    if split == "unlabelled" or (split == "test" and len(missing) == len(read.labels)):
        return None
    if missing:
        raise DataError(
            f"{missing[0]}: expected a label, got none ({len(missing):,} such rows); "
            "add it, remove the row, or put such rows under unlabelled"
        )
    return read.labels


def _add(read: _Split, record: Record, settings: TaskDataSettings, split: str) -> None:
    """Append one row. Raises DataError, with nothing appended, for a row that cannot be used."""
    values, place = record
    columns, kind = settings.columns, settings.kind
    words: list[str] = []
    label: Any = None
    pair, moved = "", 0
    if kind == "tagging":
        words = words_of(values["words"], place, columns.words)
        text = " ".join(words)
        label = tags_of(values["tags"], words, place, settings) if values.get("tags") is not None else None
    elif kind == "question_answering":
        text, pair = text_of(values["question"], place, columns.question), text_of(values["context"], place, columns.context)
        label, moved = answers_of(values.get("answers"), pair, place)
    else:
        text = text_of(values["text"], place, columns.text)
        pair = text_of(values["text_pair"], place, columns.text_pair) if columns.text_pair is not None else ""
        if kind == "multi_label":
            label = several(values, place, settings) if any(role.startswith("label") for role in values) else None
        elif kind == "regression":
            label = number(values.get("label"), place)
        else:
            label = class_name(values.get("label"), place, settings)
        if label is None and split in ("train", "dev") and settings.on_bad_row == "drop":
            raise DataError(f"{place}: expected a label, got none; add it")
    read.texts.append(text)
    read.pairs.append(pair)
    read.words.append(words)
    read.labels.append(label)
    read.ids.append(str(values["id"]) if values.get("id") is not None else str(len(read.ids)))
    if settings.split_by is not None:
        read.groups.append(str(values.get("split_by")))
    read.places.append(place)
    if moved:
        read.moved.append(place)


def _with_bio(examples: Examples, settings: TaskDataSettings, report: DataReport) -> Examples:
    """The examples with IOB1 tags converted to BIO, and with tags that are all among the settings' labels."""
    tags = examples.labels or []
    if settings.tag_scheme == "iob1" or (settings.tag_scheme == "auto" and is_iob1(tags)):
        changed = [place for place, row in zip(examples.places, tags, strict=True) if begins_inside(row)]
        tags = [to_bio(row) for row in tags]
        report.add(examples.split, "sentences with IOB1 tags", "converted to BIO", changed)
    elif settings.tag_scheme == "auto":
        odd = [place for place, row in zip(examples.places, tags, strict=True) if begins_inside(row)]
        report.add(examples.split, "sentences with an I- tag that continues no entity", "kept", odd)
    known = set(settings.labels or [])
    for place, row in zip(examples.places, tags, strict=True) if known else ():
        for tag in row:
            if tag not in known:
                names = listed(settings.labels or [])
                raise DataError(f"{place}: expected a tag among {names}, got {tag:.60}; correct it, or map it under label_names")
    return replace(examples, labels=tags)
