"""A row of a file as an example: checked texts, and its label by name."""

import ast
import json
import math
from typing import Any

from data_shards.errors import DataError
from data_shards.sources.formats.common import InvalidText, without_surrogates
from data_shards.tasks.examples import Answer
from data_shards.tasks.settings import TaskDataSettings, did_you_mean, label_text, listed

SHIFT = 3
"""Characters by which a published answer's start may be wrong and is corrected, as in SQuAD's first release."""


def text_of(value: Any, place: str, column: object) -> str:
    """A text field; a null is empty. Raises DataError for another type, and for an unpaired surrogate."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(
            f"{place}: expected text in column {column}, got {type(value).__name__} {value!r:.40}; set columns to a text column"
        )
    if value.isascii():
        return value
    checked = without_surrogates(value, place)
    if isinstance(checked, InvalidText):
        raise DataError(f"{place}: expected UTF-8, got {checked.reason}; repair the row, or set on_bad_row to drop")
    return checked


def class_name(value: Any, place: str, settings: TaskDataSettings) -> str | None:
    """The label name of a value; None for an empty value. Raises DataError for a name that is not among the settings' labels."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    text = label_text(value)
    if text == "":
        return None
    name = settings.label_names.get(text, text)
    if settings.labels is not None and name not in settings.labels:
        hint = did_you_mean(name, [*settings.labels, *settings.label_names])
        raise DataError(
            f"{place}: expected a label among {listed(settings.labels)}, got {text:.60}{hint}; correct it, or map it under label_names"
        )
    return name


def number(value: Any, place: str) -> float | None:
    """The target of a regression; None for an empty value. Raises DataError for text, NaN and infinity."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    try:
        target = float(value)
    except (TypeError, ValueError):
        target = math.nan
    if isinstance(value, bool) or not math.isfinite(target):
        raise DataError(f"{place}: expected a number as label, got {value!r:.40}; correct the row, or set on_bad_row to drop")
    return target


def several(values: dict[str, Any], place: str, settings: TaskDataSettings) -> tuple[str, ...] | None:
    """The labels of a row of multi_label, in no order and once each; None for an empty column that may hold no label."""
    columns = settings.columns.label
    if isinstance(columns, list):
        chosen: list[str | None] = []
        for role, column in zip((f"label:{index}" for index in range(len(columns))), columns, strict=True):
            mark = label_text(values[role])
            if mark not in ("0", "1", "false", "true", "False", "True"):
                raise DataError(f"{place}: expected 0 or 1 in column {column}, got {mark!r:.40}; correct the row")
            if mark in ("1", "true", "True"):
                chosen.append(class_name(str(column), place, settings))
    else:
        value = values.get("label")
        if value is None:
            return None
        parts = _labels_in(value, settings.label_separator) if isinstance(value, str) else value
        if not isinstance(parts, list | tuple):
            wanted = f"a list of labels, or text with {settings.label_separator!r} between them"
            raise DataError(f"{place}: expected {wanted}, got {value!r:.40}; set columns.label")
        chosen = [class_name(part, place, settings) for part in parts]
    return tuple(dict.fromkeys(name for name in chosen if name is not None))


def _labels_in(text: str, separator: str) -> list[Any]:
    """The labels that a text field holds: a written list, or labels with separators between them."""
    written = _written_list(text)
    return text.split(separator) if written is None else written


def words_of(value: Any, place: str, column: object) -> list[str]:
    """The words of a row of tagging: a list, JSON of a list, or text with spaces between the words."""
    if isinstance(value, str):
        value = _written_list(value) or value.split()
    if not isinstance(value, list):
        raise DataError(f"{place}: expected a list of words in column {column}, got {type(value).__name__}; set columns.words")
    return [text_of(word, place, column) for word in value]


def tags_of(value: Any, words: list[str], place: str, settings: TaskDataSettings) -> list[str]:
    """The tags of a row of tagging, one a word. Raises DataError for another number of tags."""
    if isinstance(value, str):
        value = _written_list(value) or value.split()
    if not isinstance(value, list):
        got = type(value).__name__
        raise DataError(f"{place}: expected a list of tags in column {settings.columns.tags}, got {got}; set columns.tags")
    if len(value) != len(words):
        raise DataError(f"{place}: expected a tag for each of {len(words)} words, got {len(value)} tags; repair the row")
    tags = [label_text(tag) for tag in value]
    return [settings.label_names.get(tag, tag) for tag in tags]


def answers_of(value: Any, context: str, place: str) -> tuple[tuple[Answer, ...] | None, int]:
    """(answers at the characters where they stand, how many were moved by up to SHIFT characters); None if the file gives none.

    value: a list of {text, answer_start}, or {text: [...], answer_start: [...]}, or JSON of either. Raises DataError for an answer that
    is not in its context.
    """
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            raise DataError(f"{place}: expected answers as JSON with text and answer_start, got {value!r:.40}; repair the row") from None
    if value is None:
        return None, 0
    if isinstance(value, dict):
        texts, starts = value.get("text"), value.get("answer_start")
        pairs = list(zip(texts, starts, strict=False)) if isinstance(texts, list) and isinstance(starts, list) else [(None, None)]
    elif isinstance(value, list):
        pairs = [(one.get("text"), one.get("answer_start")) if isinstance(one, dict) else (None, None) for one in value]
    else:
        pairs = [(None, None)]
    answers, moved = [], 0
    for text, start in pairs:
        if not isinstance(text, str) or not isinstance(start, int) or isinstance(start, bool):
            raise DataError(f"{place}: expected answers with text and answer_start, got {value!r:.60}; repair the row")
        if not text.strip():
            raise DataError(f"{place}: expected an answer's text, got an empty one; leave it out, or give an empty list of answers")
        shift = next((shift for shift in _shifts() if start + shift >= 0 and context.startswith(text, start + shift)), None)
        if shift is None:
            instead = context[max(start, 0) :][: len(text)]
            raise DataError(
                f"{place}: expected the answer {text!r:.60} at character {start} of its context, got {instead!r:.60}; "
                "repair the row, or set on_bad_row to drop"
            )
        moved += shift != 0
        answers.append(Answer(text, start + shift))
    return tuple(answers), moved


def _shifts() -> list[int]:
    return sorted(range(-SHIFT, SHIFT + 1), key=abs)


def _written_list(text: str) -> list[Any] | None:
    """The list that a csv field spells, as JSON or as Python writes it; None for other text."""
    if not (text.lstrip().startswith("[") and text.rstrip().endswith("]")):
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        return value if isinstance(value, list) else None
    return None
