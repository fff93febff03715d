"""Published figures: each has a source, and its shares follow from the two scores of one table."""

import pytest

from launcher.report.published import PUBLISHED, PUBLISHED_TASKS


def test_every_figure_has_a_source_a_split_and_both_scores():
    assert [row.model for row in PUBLISHED] == ["DistilBERT", "TinyBERT-4", "MiniLM-L6-H384", "MobileBERT"]
    for row in PUBLISHED:
        assert row.source
        assert row.url
        assert row.split in ("development set", "test set")
        assert set(row.scores) <= set(PUBLISHED_TASKS)
        assert all(0 < score < 100 for pair in row.scores.values() for score in pair)


def test_means_are_those_that_the_papers_state():
    """DistilBERT keeps 97 % of BERT-base on GLUE; TinyBERT-4 more than 96.8 %; MobileBERT is 0.6 below BERT-base."""
    means = {row.model: [sum(pair[side] for pair in row.scores.values()) / len(row.scores) for side in (0, 1)] for row in PUBLISHED}
    distilbert, tinybert, mobilebert = (means[name] for name in ("DistilBERT", "TinyBERT-4", "MobileBERT"))
    assert distilbert[0] / distilbert[1] == pytest.approx(0.97, abs=0.02)  # the paper's mean has WNLI too
    assert tinybert[0] / tinybert[1] == pytest.approx(0.968, abs=0.003)
    assert mobilebert[1] - mobilebert[0] == pytest.approx(0.6, abs=0.2)  # the paper's mean has MNLI-mm too
