"""The kind of task that a label column holds, and a csv file's separator. Guesses, which the command names."""

import csv
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_shards.errors import DataError
from data_shards.tasks.records import records
from data_shards.tasks.report import DataReport
from data_shards.tasks.settings import Kind, TaskDataSettings

SEPARATORS = (";", "|", ",")
FIELD_SEPARATORS = (";", "\t", "|")
"""Of files, beside the comma."""
DECIMAL_COMMA = re.compile(r"[+-]?\d+(,\d+)?")
MANY = 20
"""More different numbers than these are targets; whole numbers up to these are classes."""


@dataclass(frozen=True)
class Guess:
    """A kind with its reason. separator: between the labels of a field, for several labels."""

    kind: Kind
    reason: str
    separator: str | None = None


def guess_kind(settings: TaskDataSettings) -> Guess:
    """The kind of the label column of the training file. Raises DataError for a file without that column, and for decimal commas."""
    values = [record.values.get("label") for record in records(settings, "train", DataReport()) if not isinstance(record, Exception)]
    values = [value for value in values if value is not None and value != ""]
    commas = [value for value in values if "," in str(value)]
    if commas and all(DECIMAL_COMMA.fullmatch(str(value).strip()) for value in values):
        raise DataError(
            f"{', '.join(settings.paths('train'))}: expected numbers with a decimal point in column {settings.columns.label}, "
            f"got {commas[0]}; replace the commas, or set --kind"
        )
    return kind_of(values)


def guess_separator(path: str, columns: Sequence[str]) -> str | None:
    """The separator of a csv file whose first line has these columns with it and not with a comma; None for any other file."""
    if Path(path).suffix != ".csv":
        return None
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        first = file.readline()

    def there(separator: str) -> int:
        fields = next(csv.reader([first], delimiter=separator), [])
        return len(fields) > 1 and sum(column in fields for column in columns)

    return None if there(",") else max((one for one in FIELD_SEPARATORS if there(one)), key=there, default=None)


def kind_of(values: Sequence[Any]) -> Guess:
    """The kind of these values of a label column."""
    if any(isinstance(value, list | tuple) for value in values):
        return Guess("multi_label", "its labels are lists")
    numbers = [number for value in values if (number := _number(value)) is not None]
    different = len(set(numbers))
    if values and len(numbers) == len(values) and different > MANY:
        return Guess("regression", f"its labels are {different:,} different numbers")
    if values and len(numbers) == len(values) and different > 2 and not all(number.is_integer() for number in numbers):
        return Guess("regression", "its labels are numbers with decimals")
    texts = {str(value) for value in values}
    for separator in SEPARATORS:
        parts = {part.strip() for text in texts for part in text.split(separator)}
        if any(separator in text for text in texts) and len(parts) < len(texts):
            return Guess("multi_label", f"its fields join {len(parts):,} labels with {separator!r}", separator)
    return Guess("classification", f"it has {len(texts):,} different labels")


def _number(value: Any) -> float | None:
    """A finite number; None for anything else."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) and not isinstance(value, bool) else None
