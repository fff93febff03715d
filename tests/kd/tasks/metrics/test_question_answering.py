"""SQuAD scores by the published rules, and the threshold of no answer against an exhaustive search."""

import numpy as np
import pytest

from kd.errors import KdError
from kd.tasks.metrics import question_answering as squad


def test_texts_are_normalised_as_the_official_script_does():
    assert squad.normalised("The  Eiffel Tower, (in) Paris!") == "eiffel tower in paris"
    assert squad.normalised("An apple a day") == "apple day"
    assert squad.normalised("theatre") == "theatre"
    assert squad.normalised("U.S.-based") == "usbased"
    assert squad.normalised("the") == ""


@pytest.mark.parametrize(
    ("prediction", "answers", "match", "f1"),
    [
        ("the Denver Broncos", ["Denver Broncos", "The Broncos"], 1, 1),
        ("Broncos of Denver", ["Denver Broncos"], 0, 2 * 2 / 5),
        ("gold gold", ["gold"], 0, 2 * 1 / 3),
        ("Santa Clara, California", ["Levi's Stadium", "Santa Clara"], 0, 2 * 2 / 5),
        ("", [], 1, 1),  # no answer, rightly
        ("Denver", [], 0, 0),
        ("", ["Denver"], 0, 0),
        ("a", [], 1, 1),  # normalises to nothing
        ("", ["a", "Denver"], 0, 0),  # an answer that normalises to nothing is no answer
    ],
)
def test_scores_of_one_example(prediction: str, answers: list[str], match: float, f1: float):
    np.testing.assert_allclose(squad.answer_scores([prediction], [answers]), [[match, f1]])


def test_the_metric_is_the_mean_over_examples_and_so_in_resamples():
    predictions, labels = ["Denver Broncos", "gold gold", ""], [["The Denver Broncos"], ["gold"], ["blue"]]
    assert squad.mean_exact_match(predictions, labels) == pytest.approx(1 / 3)
    assert squad.mean_f1(predictions, labels) == pytest.approx((1 + 2 / 3) / 3)
    np.testing.assert_allclose(squad.weighted_f1(predictions, labels)(np.array([[0.0, 2, 1]])), [(4 / 3) / 3])
    np.testing.assert_allclose(squad.weighted_exact_match(predictions, labels)(np.array([[2.0, 1, 0]])), [2 / 3])


def test_a_text_in_place_of_a_list_of_answers_is_refused():
    with pytest.raises(KdError, match="expected a list of gold answers in example 0, got the text 'Denver'"):
        squad.mean_f1(["Denver"], ["Denver"])


def test_the_null_threshold_is_the_best_of_all():
    generator = np.random.default_rng(6)
    has_answer = generator.random(200) < 0.5
    margins = np.round(np.where(has_answer, -1.0, 1.0) + generator.normal(size=200), 1)
    answered, unanswered = np.where(has_answer, generator.random(200), 0.0), (~has_answer).astype(float)

    def mean(threshold: float) -> float:
        return float(np.where(margins > threshold, unanswered, answered).mean())

    threshold, score = squad.best_null_threshold(margins, answered, unanswered)
    assert mean(threshold) == pytest.approx(score)
    assert score == pytest.approx(max(mean(cut) for cut in np.arange(-8, 8, 0.05)))
    assert squad.best_null_threshold([0.0, 1.0], [1.0, 1.0], [0.0, 0.0])[0] > 1.0
    assert squad.best_null_threshold([0.0, 1.0], [0.0, 0.0], [1.0, 1.0])[0] < 0.0
