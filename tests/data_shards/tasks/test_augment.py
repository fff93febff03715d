"""Augmentation: which words are replaced follows from text and seed alone."""

import pytest

from data_shards.errors import DataError
from data_shards.tasks.augment import augmented, joined
from data_shards.tasks.examples import Examples


def examples(texts, pairs=None, kind="classification") -> Examples:
    count = len(texts)
    places = [f"f:{n}" for n in range(count)]
    return Examples("train", kind, texts, pairs, None, ["x"] * count, [str(n) for n in range(count)], None, places)


def shouting(texts):
    """The word in capitals as the candidate of each word, and none for the word `stay`."""
    return [[[] if word == "stay" else [word.upper()] for word in words] for words in texts]


TEXTS = [f"alpha beta gamma delta stay {number}" for number in range(300)]


def test_a_share_of_the_words_is_replaced_and_the_others_stay():
    made = augmented(examples(TEXTS), shouting, copies=3, share=0.4, seed=1)
    assert made.labels is None
    assert made.split == "unlabelled"
    words = [word for text in made.texts for word in text.split() if word.isalpha()]
    assert "STAY" not in words
    share = sum(word.isupper() for word in words) / sum(word != "stay" for word in words)
    assert 0.36 < share < 0.5  # copies that equal their text are left out
    assert all(made.texts[at].lower() == TEXTS[int(place.split()[0][2:])] for at, place in enumerate(made.places))


def test_copies_do_not_repeat_and_do_not_depend_on_other_rows():
    whole = augmented(examples(TEXTS), shouting, copies=4, share=0.3, seed=1)
    alone = augmented(examples(TEXTS[7:8]), shouting, copies=4, share=0.3, seed=1)
    assert alone.texts == [text for text in whole.texts if text.lower() == TEXTS[7]]
    assert len(set(whole.texts) | set(TEXTS)) == len(whole) + len(TEXTS)
    assert augmented(examples(TEXTS), shouting, copies=4, share=0.3, seed=2).texts != whole.texts


def test_both_texts_of_a_pair_change():
    made = augmented(examples(["one two"], ["three four"]), shouting, copies=50, share=0.5, seed=0)
    assert any(text != "one two" for text in made.texts)
    assert any(pair != "three four" for pair in made.pairs)


def test_nothing_is_made_without_candidates():
    assert len(augmented(examples(TEXTS), lambda texts: [[[]] * len(words) for words in texts], copies=3, share=1.0, seed=0)) == 0


def test_labels_that_are_tied_to_words_are_refused():
    with pytest.raises(DataError, match="expected a task that classifies whole texts, got tagging"):
        augmented(examples(["a"], kind="tagging"), shouting, copies=1, share=1.0, seed=0)


def test_a_transfer_set_joins_splits_without_their_labels():
    both = joined([examples(["a", "b"]), examples(["c"])])
    assert (both.texts, both.labels, both.ids) == (["a", "b", "c"], None, ["0", "1", "2"])
    with pytest.raises(DataError, match="expected splits of one kind"):
        joined([examples(["a"]), examples(["a"], ["b"])])
