"""Predictions of tokens become those of words and texts."""

import numpy as np
from transformers import AutoTokenizer

from data_shards.tasks.encoding.encode import encode
from data_shards.tasks.encoding.results import answer_text, context_tokens, tags_of_words
from data_shards.tasks.examples import Answer, Examples
from data_shards.tasks.settings import TaskDataSettings


def test_gold_tags_come_back_and_cut_or_lost_words_get_the_default(byte_bpe, texts):
    words = [text.split() for text in texts[:20]]
    tags = [["AB"[n % 2] for n in range(len(row))] for row in words]
    examples = Examples("dev", "tagging", [" ".join(row) for row in words], None, words, tags, [""] * 20, None, [""] * 20)
    settings = TaskDataSettings(kind="tagging", train="unused", max_length=24)
    task = encode(examples, AutoTokenizer.from_pretrained(byte_bpe), settings, ["A", "B"])
    cut = 0
    for row in range(20):
        tokens = task.labels[task.offsets[row] : task.offsets[row + 1]]
        found = tags_of_words(task, row, tokens, len(words[row]))
        seen = len(found) - found.count("O")
        assert found == tags[row][:seen] + ["O"] * (len(words[row]) - seen)
        cut += len(words[row]) - seen
    assert cut == task.counts.cut_words > 0


def test_an_answer_comes_back_as_it_is_written_in_the_context(byte_bpe):
    context = "Amber  Birch, cedar"
    examples = Examples("dev", "question_answering", ["oak?"], [context], None, [(Answer("Birch, cedar", 7),)], ["q"], None, ["f:1"])
    settings = TaskDataSettings(kind="question_answering", train="unused")
    task = encode(examples, AutoTokenizer.from_pretrained(byte_bpe), settings)
    first, last = task.labels[0].tolist()
    assert answer_text(task, examples, 0, first, last) == "Birch, cedar"
    assert answer_text(task, examples, 0, last, first) == ""
    assert answer_text(task, examples, 0, 0, 0) == ""
    inside = np.flatnonzero(context_tokens(task, 0))
    assert inside[0] > 2
    assert inside[-1] == task.lengths[0] - 2
    assert len(inside) == inside[-1] - inside[0] + 1
