"""Labels of data and model are matched by name, never by position."""

import pytest

from data_shards.errors import DataError
from data_shards.tasks.labels import resolve_labels

NLI = ["entailment", "neutral", "contradiction"]


def test_another_order_in_the_model_is_followed():
    assert resolve_labels(NLI, {0: "contradiction", 1: "entailment", 2: "neutral"}) == [1, 2, 0]


def test_case_spaces_and_hyphens_do_not_matter():
    assert resolve_labels(["not_equivalent", "Equivalent"], {0: "EQUIVALENT", 1: "Not equivalent"}) == [1, 0]


def test_placeholders_are_refused_with_both_lists_and_the_setting():
    with pytest.raises(DataError) as error:
        resolve_labels(NLI, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, where="teacher")
    for part in ("teacher", "whose order is not known", "LABEL_0, LABEL_1, LABEL_2", "entailment, neutral, contradiction", "set label_map"):
        assert part in str(error.value)


def test_a_map_decides_over_placeholders():
    given = {"entailment": "LABEL_2", "neutral": "LABEL_0", "contradiction": "LABEL_1"}
    assert resolve_labels(NLI, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}, given) == [2, 0, 1]


def test_data_whose_own_names_are_placeholders_is_no_contradiction():
    assert resolve_labels(["LABEL_0", "LABEL_1"], {0: "LABEL_0", 1: "LABEL_1"}) == [0, 1]


@pytest.mark.parametrize(
    ("model", "given", "message"),
    [
        ({0: "pos", 1: "neg"}, None, "expected a label negative"),
        ({0: "negative", 1: "neutral", 2: "positive"}, None, "expected 2 labels, got 3"),
        ({0: "pos", 1: "neg"}, {"negative": "neg", "positive": "neg"}, "one twice"),
        ({0: "pos", 1: "neg"}, {"bad": "neg"}, "got bad"),
        ({0: "pos", 1: "neg"}, {"negative": "none"}, "got none"),
    ],
)
def test_other_names_are_refused(model, given, message):
    with pytest.raises(DataError, match=message):
        resolve_labels(["negative", "positive"], model, given)
