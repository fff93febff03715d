"""Augmented texts of a task as rows without labels. The caller makes the texts, for example with a masked language model."""

from collections.abc import Callable, Iterable
from dataclasses import replace

from data_shards.errors import DataError
from data_shards.tasks.examples import Examples

Copies = Callable[[Iterable[str]], Iterable[list[str]]]
"""Texts -> for each of them its changed copies, such as kd.tasks.augmentation's Augmenter.copies."""


def augmented(examples: Examples, copies: Copies) -> Examples:
    """A row for each copy of each text, without labels. Of a pair, one text changes and the other stays, as in TinyBERT's program.

    Rows that are already among the examples, or made twice, are left out. Raises DataError for question answering and tagging, whose
    labels are tied to words.
    """
    if examples.kind in ("question_answering", "tagging"):
        raise DataError(f"augmentation: expected a task that classifies whole texts, got {examples.kind}; leave it out")
    seen = set(examples.inputs())
    made: list[tuple[str, ...]] = []
    places: list[str] = []
    for column in range(1 if examples.pairs is None else 2):
        texts = examples.texts if column == 0 else examples.pairs or []
        for inputs, place, changed in zip(examples.inputs(), examples.places, copies(texts), strict=True):
            for copy in changed:
                row = (*inputs[:column], copy, *inputs[column + 1 :])
                if row not in seen:
                    seen.add(row)
                    made.append(row)
                    places.append(f"{place} (augmented)")
    return replace(
        examples,
        split="augmented",
        texts=[row[0] for row in made],
        pairs=None if examples.pairs is None else [row[1] for row in made],
        labels=None,
        groups=None,
        ids=[str(number) for number in range(len(made))],
        places=places,
    )
