"""Windows of long contexts: they cover the context, and answers come back by their characters."""

import numpy as np
import pytest
from transformers import AutoTokenizer

from data_shards.tasks.encoding.encode import encode
from data_shards.tasks.encoding.windows import answer_tokens
from data_shards.tasks.examples import Answer, Examples
from data_shards.tasks.settings import TaskDataSettings

SETTINGS = {"kind": "question_answering", "train": "unused", "max_length": 40, "window_overlap": 8, "max_question": 10}


@pytest.fixture(params=["wordpiece", "byte_bpe"])
def tokenizer(request):
    return AutoTokenizer.from_pretrained(request.getfixturevalue(request.param))


def made(questions, contexts, answers) -> Examples:
    count = len(questions)
    return Examples("train", "question_answering", questions, contexts, None, answers, [""] * count, None, ["file:1"] * count)


@pytest.fixture
def examples(texts) -> Examples:
    contexts = [" ".join(texts[number : number + 3]) for number in range(30)]
    words = [context.split()[(7 * number) % len(context.split())] for number, context in enumerate(contexts)]
    answers = [(Answer(word, context.index(word)),) for word, context in zip(words, contexts, strict=True)]
    return made([f"  {word}" for word in words], contexts, answers)


def test_windows_equal_those_of_transformers(tokenizer, examples):
    task = encode(examples, tokenizer, TaskDataSettings(**SETTINGS))
    expected = tokenizer(
        [text.strip() for text in examples.texts],
        examples.pairs,
        truncation="only_second",
        max_length=40,
        stride=8,
        return_overflowing_tokens=True,
        padding=False,
    )
    rows = [task.ids[begin:end].tolist() for begin, end in zip(task.offsets[:-1], task.offsets[1:], strict=True)]
    assert rows == expected["input_ids"]
    assert task.examples.tolist() == expected["overflow_to_sample_mapping"]
    assert task.counts.windows == len(rows) > 60
    assert task.counts.split_contexts > 20


def test_every_answer_comes_back_from_a_window_that_holds_it(tokenizer, examples):
    task = encode(examples, tokenizer, TaskDataSettings(**SETTINGS))
    found = set()
    for row in range(len(task)):
        number, (first, last) = int(task.examples[row]), task.labels[row].tolist()
        if last == 0:
            continue
        spans = task.characters[task.offsets[row] : task.offsets[row + 1]]
        text = examples.pairs[number][spans[first, 0] : spans[last, 1]]
        assert examples.labels[number][0].text.rstrip(".") == text.rstrip(".")
        found.add(number)
    assert found == set(range(30))
    assert task.counts.unseen_answers == 0


def test_a_question_without_an_answer_points_to_cls(tokenizer):
    task = encode(made(["oak"], ["amber birch"], [()]), tokenizer, TaskDataSettings(**SETTINGS))
    assert task.labels.tolist() == [[0, 0]]


def test_a_long_question_is_cut_and_counted(tokenizer):
    task = encode(made(["oak " * 50], ["amber birch " * 20], [()]), tokenizer, TaskDataSettings(**SETTINGS))
    assert task.counts.cut_questions == 1
    assert task.lengths.max() <= 40
    assert (task.characters[: task.lengths[0], 0] >= 0).sum() >= 24


def test_an_answer_longer_than_a_window_is_counted(tokenizer):
    context = "amber birch cedar " * 30
    task = encode(made(["oak"], [context], [(Answer(context, 0),)]), tokenizer, TaskDataSettings(**SETTINGS))
    assert task.counts.unseen_answers == 1
    assert not task.labels.any()


def test_an_answer_inside_a_token_is_counted_once(byte_bpe):
    tokenizer = AutoTokenizer.from_pretrained(byte_bpe)
    context = "amber birch cedar " * 12 + "juniper"
    spans = tokenizer(context, return_offsets_mapping=True)["offset_mapping"]
    begin, end = [(begin, end) for begin, end in spans if end - begin > 1][-1]
    answers = [(Answer(context[begin + 1 : end], begin + 1),), (Answer(context[begin:end], begin),)]
    task = encode(made(["oak", "oak"], [context, context], answers), tokenizer, TaskDataSettings(**SETTINGS))
    assert task.counts.split_contexts == 2
    assert task.counts.inexact_answers == 1


@pytest.mark.parametrize(
    ("start", "text", "tokens"),
    [(0, "ab", (2, 2)), (3, "cd", (3, 3)), (0, "ab cd", (2, 3)), (4, "d e", (3, 4)), (5, " e", (3, 4)), (6, "ef", None)],
)
def test_tokens_of_an_answer_are_the_smallest_that_cover_it(start, text, tokens):
    spans = np.array([(-1, -1), (-1, -1), (0, 2), (3, 5), (6, 7), (-1, -1)], np.int32)  # "ab cd e"
    assert answer_tokens(spans, Answer(text, start)) == tokens
