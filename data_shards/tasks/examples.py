"""Examples of a split as they were read, before any tokenizer: texts, labels by name, and the place of each row."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class Answer:
    """An answer in its context, and the character at which it starts."""

    text: str
    start: int


@dataclass(frozen=True)
class Examples:
    """The rows of one split; each list has one entry a row.

    texts: the text; of tagging, its words joined by spaces; of question answering, the question.
    pairs: the second text, or the context.
    words: of tagging only.
    labels: None if the split has no labels.
      classification: names.
      multi_label: tuples of names.
      regression: floats.
      tagging: lists of tags.
      question_answering: tuples of Answer, empty if the question has none.
    ids: the question's id, else the row's number in the split, from 0.
    groups: values of the column `split_by`.
    places: file:line.
    """

    split: str
    kind: str
    texts: list[str] = field(default_factory=list)
    pairs: list[str] | None = None
    words: list[list[str]] | None = None
    labels: list[Any] | None = None
    ids: list[str] = field(default_factory=list)
    groups: list[str] | None = None
    places: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, rows: Iterable[int], split: str | None = None) -> "Examples":
        """The rows with these numbers, in this order."""
        numbers = list(rows)

        def chosen(values: Sequence[Any] | None) -> Any:
            return None if values is None else [values[number] for number in numbers]

        return replace(
            self,
            split=split or self.split,
            texts=chosen(self.texts),
            pairs=chosen(self.pairs),
            words=chosen(self.words),
            labels=chosen(self.labels),
            ids=chosen(self.ids),
            groups=chosen(self.groups),
            places=chosen(self.places),
        )

    def inputs(self) -> list[tuple[str, ...]]:
        """The inputs of each row, as a key: equal for equal inputs."""
        if self.words is not None:
            return [tuple(words) for words in self.words]
        if self.pairs is None:
            return [(text,) for text in self.texts]
        return list(zip(self.texts, self.pairs, strict=True))

    def digest(self) -> str:
        """sha256 of what the rows say, labels included, in their order; places do not count. Hexadecimal."""
        total = hashlib.sha256(json.dumps([self.kind, len(self), self.labels is None]).encode())
        for number, inputs in enumerate(self.inputs()):
            label = None if self.labels is None else self.labels[number]
            if self.kind == "question_answering" and label is not None:
                label = [[answer.text, answer.start] for answer in label]
            total.update(json.dumps([inputs, label], ensure_ascii=True).encode())
            total.update(b"\n")
        return total.hexdigest()
