"""Encoded rows equal those of transformers' tokenizer, for both families of tokenizers."""

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import AutoTokenizer

from data_shards.errors import DataError
from data_shards.tasks.encoding.encode import encode
from data_shards.tasks.encoding.encoded import IGNORED, EncodedTask
from data_shards.tasks.examples import Examples
from data_shards.tasks.settings import TaskDataSettings


@pytest.fixture(params=["wordpiece", "byte_bpe"])
def tokenizer(request):
    return AutoTokenizer.from_pretrained(request.getfixturevalue(request.param))


def settings(kind="classification", **more) -> TaskDataSettings:
    return TaskDataSettings(kind=kind, train="unused.csv", max_length=more.pop("max_length", 24), **more)


def examples(texts, kind="classification", pairs=None, labels=None, words=None) -> Examples:
    places = [f"file:{number}" for number in range(len(texts))]
    return Examples("train", kind, texts, pairs, words, labels, [str(n) for n in range(len(texts))], None, places)


def rows(task: EncodedTask, values) -> list[list[int]]:
    return [values[begin:end].tolist() for begin, end in zip(task.offsets[:-1], task.offsets[1:], strict=True)]


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("max_length", [8, 13, 24, 500])
def test_rows_equal_those_of_transformers(tokenizer, texts, paired, max_length):
    texts = ["", *texts[:200]]
    pairs = [*texts[100:], *texts[:100]] if paired else None
    task = encode(examples(texts, pairs=pairs), tokenizer, settings(max_length=max_length))
    expected = tokenizer(texts, pairs, truncation=True, max_length=max_length, padding=False, return_token_type_ids=True)
    assert rows(task, task.ids) == expected["input_ids"]
    assert rows(task, task.token_types) == expected["token_type_ids"]
    whole = tokenizer(texts, pairs, truncation=False, padding=False)["input_ids"]
    assert task.counts.truncated == sum(len(row) > max_length for row in whole)
    assert task.labels is None
    assert task.examples.tolist() == list(range(len(texts)))


def test_the_side_of_truncation_is_the_tokenizers(tokenizer, texts):
    tokenizer.truncation_side = "left"
    task = encode(examples(texts[:20]), tokenizer, settings(max_length=10))
    assert rows(task, task.ids) == tokenizer(texts[:20], truncation=True, max_length=10, padding=False)["input_ids"]


def test_labels_are_numbers_in_the_order_of_the_names(tokenizer):
    three = ["amber", "birch", "cedar"]
    task = encode(examples(three, labels=["b", "a", "b"]), tokenizer, settings(), ["b", "a"])
    assert task.labels.tolist() == [0, 1, 0]
    assert task.labels.dtype == np.int32
    assert task.label_names == ("b", "a")
    task = encode(examples(three, "regression", labels=[0.5, 1.0, -2.0]), tokenizer, settings("regression"))
    assert task.labels.tolist() == [0.5, 1.0, -2.0]
    assert task.labels.dtype == np.float32
    task = encode(examples(three, "multi_label", labels=[("a", "b"), (), ("b",)]), tokenizer, settings("multi_label"), ["b", "a"])
    assert task.labels.tolist() == [[1, 1], [0, 0], [1, 0]]
    with pytest.raises(DataError, match="file:2: expected a label among b, a, got c"):
        encode(examples(three, labels=["b", "a", "c"]), tokenizer, settings(), ["b", "a"])


def tagged(words, tags) -> Examples:
    return examples([" ".join(row) for row in words], "tagging", words=words, labels=tags)


def test_a_word_has_its_tag_at_its_first_token_only(tokenizer, texts):
    words = [text.split() for text in texts[:50]]
    tags = [["A" if number % 3 else "B" for number in range(len(row))] for row in words]
    task = encode(tagged(words, tags), tokenizer, settings("tagging", max_length=500), ["A", "B"])
    for row, numbers, labels in zip(range(50), rows(task, task.words), rows(task, task.labels), strict=True):
        assert [number for number in numbers if number >= 0] == list(range(len(words[row])))
        assert [label for label in labels if label != IGNORED] == ["AB".index(tag) for tag in tags[row]]
        assert [at for at, number in enumerate(numbers) if number >= 0] == [at for at, label in enumerate(labels) if label != IGNORED]
    assert (task.counts.words, task.counts.cut_words, task.counts.lost_words) == (sum(map(len, words)), 0, 0)


def test_words_of_wordpiece_equal_those_of_transformers(wordpiece, texts):
    tokenizer = AutoTokenizer.from_pretrained(wordpiece)
    words = [text.split() for text in texts[:50]]
    task = encode(tagged(words, [["A"] * len(row) for row in words]), tokenizer, settings("tagging", max_length=20), ["A"])
    expected = tokenizer(words, is_split_into_words=True, truncation=True, max_length=20, padding=False)
    assert rows(task, task.ids) == expected["input_ids"]


def test_words_of_a_byte_level_tokenizer_begin_with_a_space(byte_bpe):
    tokenizer = AutoTokenizer.from_pretrained(byte_bpe)
    task = encode(tagged([["amber", "birch"]], [["A", "A"]]), tokenizer, settings("tagging"), ["A"])
    assert rows(task, task.ids) == [tokenizer(" amber birch")["input_ids"]]


def test_words_behind_the_cut_and_words_without_a_token_are_counted(wordpiece):
    tokenizer = AutoTokenizer.from_pretrained(wordpiece)
    short, long = ["amber", "\u200b", "birch", "\u00ad"], ["oak"] * 40
    task = encode(tagged([short, long, ["oak"]], [["A"] * 4, ["A"] * 40, ["A"]]), tokenizer, settings("tagging", max_length=24), ["A"])
    seen = sum(number >= 0 for number in rows(task, task.words)[1])
    assert task.counts.cut_words == 40 - seen > 0
    assert task.counts.lost_words == 2
    assert [number for number in rows(task, task.words)[0] if number >= 0] == [0, 2]
    assert task.counts.truncated == 1


def test_a_row_without_any_token_moves_no_tag(wordpiece):
    tokenizer = AutoTokenizer.from_pretrained(wordpiece)
    task = encode(tagged([["\u200b"], ["oak"], ["\u200b"]], [["A"], ["B"], ["A"]]), tokenizer, settings("tagging"), ["A", "B"])
    assert [[label for label in row if label != IGNORED] for row in rows(task, task.labels)] == [[], [1], []]
    assert task.counts.lost_words == 2


def test_the_same_word_at_the_end_of_one_row_and_the_begin_of_the_next_is_two_words(wordpiece):
    tokenizer = AutoTokenizer.from_pretrained(wordpiece)
    assert tokenizer("oak")["input_ids"] == tokenizer("oak", add_special_tokens=False)["input_ids"]
    task = encode(tagged([["oak"], ["oak"]], [["A"], ["B"]]), tokenizer, settings("tagging"), ["A", "B"])
    assert [[label for label in row if label != IGNORED] for row in rows(task, task.labels)] == [[0], [1]]


def test_rows_that_spell_a_special_token_are_counted(wordpiece):
    tokenizer = AutoTokenizer.from_pretrained(wordpiece)
    task = encode(examples(["amber [SEP] birch", "amber", "[MASK]"]), tokenizer, settings())
    assert task.counts.special == 2
    assert task.counts.lines("train")[0].startswith("train: rows whose text spells a special token")


def test_a_tokenizer_that_adds_no_special_tokens_is_told(wordpiece):
    """A classifier of BERT reads the first token, which should be [CLS]."""
    tokenizer = AutoTokenizer.from_pretrained(wordpiece)
    task = encode(examples(["amber", "birch", ""]), tokenizer, settings())
    line = "train: rows without [CLS], which the tokenizer has but does not add: 3 of 3; see its post_processor"
    assert task.counts.lines("train") == [line]
    ends = [("[CLS]", tokenizer.cls_token_id), ("[SEP]", tokenizer.sep_token_id)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    assert encode(examples(["amber", "birch", ""]), tokenizer, settings()).counts.lines("train") == []


def test_the_digest_follows_ids_and_labels(wordpiece):
    tokenizer = AutoTokenizer.from_pretrained(wordpiece)

    def digest(texts, labels, names=("a", "b")):
        return encode(examples(texts, labels=labels), tokenizer, settings(), list(names)).digest()

    same = digest(["amber", "birch"], ["a", "b"])
    assert digest(["amber", "birch"], ["a", "b"]) == same
    others = [digest(["amber", "birch"], ["b", "b"]), digest(["birch", "amber"], ["a", "b"]), digest(["amber", "birch"], ["a", "b"], "ba")]
    assert len({same, *others}) == 4


def test_a_tokenizer_without_padding_is_refused(wordpiece):
    tokenizer = AutoTokenizer.from_pretrained(wordpiece)
    tokenizer.pad_token = None
    with pytest.raises(DataError, match="expected a pad token"):
        encode(examples(["amber"]), tokenizer, settings())
