"""Augmented texts become rows without labels, each once."""

import pytest

from data_shards.errors import DataError
from data_shards.tasks.augment import augmented
from data_shards.tasks.examples import Examples


def examples(texts, pairs=None, kind="classification") -> Examples:
    count = len(texts)
    places = [f"f:{n}" for n in range(count)]
    return Examples("train", kind, texts, pairs, None, ["x"] * count, [str(n) for n in range(count)], None, places)


def shouted(texts):
    """Two copies of each text: in capitals, and with an exclamation mark; none of an empty text."""
    return ([text.upper(), f"{text}!"] if text else [] for text in texts)


def test_each_copy_is_a_row_without_a_label():
    made = augmented(examples(["one", "", "two"]), shouted)
    assert made.texts == ["ONE", "one!", "TWO", "two!"]
    assert (made.labels, made.split, made.ids) == (None, "augmented", ["0", "1", "2", "3"])
    assert made.places == [f"f:{n} (augmented)" for n in (0, 0, 2, 2)]


def test_copies_that_are_there_already_are_left_out():
    assert augmented(examples(["one", "ONE", "one"]), shouted).texts == ["one!", "ONE!"]


def test_of_a_pair_one_text_changes_and_the_other_stays():
    made = augmented(examples(["one"], ["two"]), shouted)
    assert list(zip(made.texts, made.pairs, strict=True)) == [("ONE", "two"), ("one!", "two"), ("one", "TWO"), ("one", "two!")]


def test_labels_that_are_tied_to_words_are_refused():
    with pytest.raises(DataError, match="expected a task that classifies whole texts, got tagging"):
        augmented(examples(["a"], kind="tagging"), shouted)
