"""Texts to predict on: lines, csv or jsonl from a file or standard input, one at a time."""

import csv
import json
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from launcher.errors import LaunchError
from stillhouse.errors import one_line

FORMATS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".json": "jsonl"}


@dataclass(frozen=True)
class Text:
    """One text, or a pair, and its origin (file:line). words: given where the input has a list of words."""

    origin: str
    text: str
    pair: str | None
    words: list[str] | None = None

    def split_words(self) -> list[str]:
        """The words of the input, or the text split at white space."""
        return self.words if self.words is not None else self.text.split()


def format_of(path: str, given: str | None) -> str:
    """The format of a file by its ending, unless it is given. Standard input has lines."""
    return given or FORMATS.get(Path(path).suffix, "lines")


def read_texts(path: str, form: str, column: str, pair: str | None) -> Iterator[Text]:
    """The texts of a file; `-` is standard input. Empty lines are left out.

    Raises LaunchError for a file that cannot be read, a line that is no JSON object, and a column that is not there.
    """
    if path == "-":
        yield from _texts(sys.stdin, "standard input", form, column, pair)
        return
    try:
        with open(path, encoding="utf-8-sig", newline="" if form in ("csv", "tsv") else None) as file:
            yield from _texts(file, path, form, column, pair)
    except (OSError, UnicodeDecodeError) as error:
        raise LaunchError(f"{path}: expected a readable text file in UTF-8, got {one_line(error)}; correct the path") from error


def number_of_texts(path: str, form: str) -> int | None:
    """The number of texts in a file of lines or jsonl; None for standard input, other formats, and a file that cannot be read."""
    if path == "-" or form not in ("lines", "jsonl"):
        return None
    try:
        with open(path, "rb") as file:
            return sum(1 for line in file if line.strip())
    except OSError:
        return None


def _texts(file: TextIO, name: str, form: str, column: str, pair: str | None) -> Iterator[Text]:
    if form == "lines":
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield Text(f"{name}:{number}", line.rstrip("\r\n"), None)
        return
    for number, values in _rows(file, name, form):
        origin = f"{name}:{number}"
        words = values.get("words")
        if isinstance(words, list) and all(isinstance(word, str) for word in words):
            yield Text(origin, " ".join(words), None, words)
            continue
        found = [_field(origin, values, key) for key in (column, pair) if key is not None]
        yield Text(origin, found[0], found[1] if pair is not None else None)


def _rows(file: TextIO, name: str, form: str) -> Iterable[tuple[int, dict[str, object]]]:
    if form in ("csv", "tsv"):
        dialect = {"delimiter": "\t", "quoting": csv.QUOTE_NONE} if form == "tsv" else {}
        reader = csv.DictReader(file, **dialect)  # type: ignore[call-overload]
        try:
            for values in reader:
                yield reader.line_num, dict(values)
        except csv.Error as error:
            raise LaunchError(f"{name}:{reader.line_num}: expected {form}, got {one_line(error)}; correct the line") from error
        return
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            parsed = json.loads(line)
        except ValueError as error:
            raise LaunchError(f"{name}:{number}: expected a JSON object, got {one_line(error)}; correct the line") from error
        if not isinstance(parsed, dict):
            raise LaunchError(f"{name}:{number}: expected a JSON object, got {type(parsed).__name__}; correct the line")
        yield number, parsed


def _field(origin: str, values: dict[str, object], key: str) -> str:
    value = values.get(key)
    if not isinstance(value, str):
        names = ", ".join(str(name) for name in values)
        got = repr(value) if key in values else "no such column"
        raise LaunchError(f"{origin}: expected a text in {key}, got {got}; columns: {names}")
    return value
