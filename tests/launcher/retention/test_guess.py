"""The guess of a task's kind from its labels."""

import pytest

from launcher.retention.guess import kind_of


@pytest.mark.parametrize(
    ("values", "kind", "separator"),
    [
        (["good", "bad", "good"], "classification", None),
        (["1", "2", "3", "4", "5"], "classification", None),
        ([0, 1, 1], "classification", None),
        ([True, False], "classification", None),
        (["0.0", "1.0"], "classification", None),
        ([str(number) for number in range(21)], "regression", None),
        (["0.5", "1.25", "3"], "regression", None),
        ([0.1, 0.2, 0.30, 7], "regression", None),
        (["0.5", "1.25", "nan"], "classification", None),
        ([["a"], ["a", "b"]], "multi_label", None),
        (["a;b", "a", "b", "b;a"], "multi_label", ";"),
        (["red|blue", "red", "blue"], "multi_label", "|"),
        (["comedy, drama", "drama", "comedy"], "multi_label", ","),
        (["Paris, France", "Rome, Italy"], "classification", None),
        ([], "classification", None),
    ],
)
def test_labels_suggest_their_kind(values, kind, separator):
    guess = kind_of(values)
    assert (guess.kind, guess.separator) == (kind, separator)


def test_the_reason_says_what_was_seen():
    assert kind_of(["a;b", "a", "b"]).reason == "its fields join 2 labels with ';'"
    assert kind_of([n / 2 for n in range(30)]).reason == "its labels are 30 different numbers"
