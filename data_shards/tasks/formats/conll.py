"""CoNLL files: a word and its tags on each line, an empty line between sentences."""

import re
from collections.abc import Iterator
from typing import BinaryIO

from data_shards.errors import DataError
from data_shards.sources.formats.common import InvalidText, decoded, lines
from data_shards.tasks.settings import Columns

DOCUMENT_START = "-DOCSTART-"
NOT_A_WORD = re.compile(r"\d+[-.]\d+")
"""The number of a contraction or an empty node in CoNLL-U."""
TAG = re.compile(r"([BIESLU])-(.+)")


def sentences(
    file: BinaryIO, path: str, columns: Columns, tagged: bool, comment: str | None = None, universal: bool = False
) -> Iterator[tuple[list[str], list[str], str] | DataError]:
    """(words, tags, place of the first word) of each sentence; tags are empty if not `tagged`. A bad line is yielded as its error.

    The word is the first column and the tag the last, unless their settings are numbers. A tab separates columns if the line has one.
    comment: lines that begin with it are left out.
    universal: the file is CoNLL-U. Its contractions (1-2) and empty nodes (8.1) are left out.
    """
    word_at = columns.words if isinstance(columns.words, int) else 1 if universal else 0
    tag_at = columns.tags if isinstance(columns.tags, int) else 3 if universal else -1
    comment = comment or ("#" if universal else None)
    words: list[str] = []
    tags: list[str] = []
    begin = ""
    error: DataError | None = None
    for number, offset, line in lines(file, path):
        text = decoded(line, path, offset)
        if isinstance(text, InvalidText):
            error = error or DataError(f"{text.where}: expected UTF-8, got {text.reason}; repair the file")
            continue
        text = text.rstrip("\r\n")
        if not text.strip():
            if words or error:
                yield error or (words, tags, begin)
            words, tags, begin, error = [], [], "", None
            continue
        if comment is not None and text.startswith(comment):
            continue
        parts = text.split("\t") if "\t" in text else text.split()
        parts = [part.strip() for part in parts]
        begin = begin or f"{path}:{number}"
        if parts[0] == DOCUMENT_START:
            begin = ""
            continue
        if universal and NOT_A_WORD.fullmatch(parts[0]):
            continue
        needed = max(word_at + 1, tag_at + 1, 2) if tagged else word_at + 1
        if len(parts) < needed or not parts[word_at] or (tagged and not parts[tag_at]):
            error = error or DataError(f"{path}:{number}: expected a word and its tag, got {text[:60]!r}; add what is missing")
            continue
        words.append(parts[word_at])
        if tagged:
            tags.append(parts[tag_at])
    if words or error:
        yield error or (words, tags, begin)


def is_iob1(sentences_of_tags: list[list[str]]) -> bool:
    """True if entities begin with I-, and B- only separates neighbours of one type, as in the first release of CoNLL-2003."""
    begins_with_inside = False
    for tags in sentences_of_tags:
        before = "O"
        for tag in tags:
            match = TAG.fullmatch(tag)
            if match:
                same = before[2:] == match[2] and before != "O"
                if match[1] not in "BI" or (match[1] == "B" and not same):
                    return False
                begins_with_inside |= match[1] == "I" and not same
            before = tag
    return begins_with_inside


def begins_inside(tags: list[str]) -> list[int]:
    """Positions of I- tags that follow no tag of the same type."""
    pairs = zip(["O", *tags], tags, strict=False)
    return [index for index, (before, tag) in enumerate(pairs) if tag.startswith("I-") and (before == "O" or before[2:] != tag[2:])]


def to_bio(tags: list[str]) -> list[str]:
    """IOB1 as BIO: the first tag of an entity is B-."""
    begins = set(begins_inside(tags))
    return [f"B-{tag[2:]}" if index in begins else tag for index, tag in enumerate(tags)]
