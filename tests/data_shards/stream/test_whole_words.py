"""Whole words under each kind of tokenizer, by hand: which pieces continue a word, and what a mask takes together."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from data_shards.storage.token_statistics import TokenStatistics
from data_shards.stream.masking import IGNORED, Masker
from data_shards.stream.rows import framed
from data_shards.stream.settings import MaskingSettings
from data_shards.tokenizer.tokenizer import is_continuation, is_special

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def wrapped(backend: Tokenizer, names: list[str]) -> PreTrainedTokenizerFast:
    if names is BERT:
        pad, unk, cls, sep, mask = names
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask
        )
    cls, pad, sep, unk, mask = names
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask)


def wordpiece() -> PreTrainedTokenizerFast:
    pieces = [*BERT, "un", "##believ", "##able", "birch", "##es", ",", "é", "##té", "grow", "."]
    backend = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return wrapped(backend, BERT)


def byte_bpe() -> PreTrainedTokenizerFast:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [("u", "n"), ("Ġ", "b"), ("Ġb", "i"), ("Ġbi", "r"), ("Ġ", "g"), ("e", "s"), ("Ã", "©")]
    pieces = [*ROBERTA, *alphabet, *(first + second for first, second in merges)]
    backend = Tokenizer(models.BPE({piece: index for index, piece in enumerate(pieces)}, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return wrapped(backend, ROBERTA)


def unigram() -> PreTrainedTokenizerFast:
    pieces = [*ROBERTA, "▁un", "believ", "able", "▁birch", "es", ",", "▁é", "té", "▁grow", "."]
    backend = Tokenizer(models.Unigram([(piece, -float(index)) for index, piece in enumerate(pieces)], unk_id=3, byte_fallback=False))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return wrapped(backend, ROBERTA)


def sentencepiece_bpe() -> PreTrainedTokenizerFast:
    pieces = [*ROBERTA, *"▁unbelievacirhsg,.étow", "▁u", "▁un", "be", "▁b", "▁bi"]
    merges = [("▁", "u"), ("▁u", "n"), ("b", "e"), ("▁", "b"), ("▁b", "i")]
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    return wrapped(backend, ROBERTA)


TEXT = "unbelievable birches, été grow."
KINDS = {
    # punctuation is a word of its own where the tokenizer sets it apart, and belongs to the word it is written at in SentencePiece
    "wordpiece": (wordpiece, ["unbelievable", "birches", ",", "été", "grow", "."]),
    "byte_bpe": (byte_bpe, ["unbelievable", " birches", ",", " été", " grow", "."]),
    "unigram": (unigram, ["▁unbelievable", "▁birches,", "▁été", "▁grow."]),
    "sentencepiece_bpe": (sentencepiece_bpe, ["▁unbelievable", "▁birches,", "▁été", "▁grow."]),
}


def words(tokenizer: PreTrainedTokenizerFast, ids: list[int]) -> list[list[int]]:
    """Places of the pieces of each word, as the marks have it."""
    marks, found = is_continuation(tokenizer), []
    for place, index in enumerate(ids):
        if marks[index] and found:
            found[-1].append(place)
        else:
            found.append([place])
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_pieces_join_to_the_words_of_the_text(kind):
    make, expected = KINDS[kind]
    tokenizer = make()
    encoding = tokenizer(TEXT, add_special_tokens=False)
    ids = encoding["input_ids"]
    assert tokenizer.unk_token_id not in ids
    assert len(ids) > len(expected), "some word has several pieces"
    groups = words(tokenizer, ids)
    # the tokenizer's own account of which pieces stand in one pre-token
    own = encoding.word_ids()
    assert groups == [[place for place, word in enumerate(own) if word == number] for number in dict.fromkeys(own)]
    assert len(groups) == len(expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mask_takes_whole_words_of_each_kind(kind):
    tokenizer = KINDS[kind][0]()
    ids = np.array(tokenizer(TEXT, add_special_tokens=False)["input_ids"], np.int32)
    groups = words(tokenizer, ids.tolist())
    special, size = is_special(tokenizer), len(tokenizer.get_vocab())
    vocabulary = TokenStatistics(np.ones(size, np.uint64), special, is_continuation(tokenizer), tokenizer.mask_token_id)
    rows = framed(
        ids[None].repeat(40, 0), np.full(40, len(ids)), None, tokenizer.cls_token_id, tokenizer.sep_token_id, tokenizer.pad_token_id
    )
    _, labels = Masker(MaskingSettings(policy="whole_word", rate=0.3), vocabulary, seed=1).apply(
        rows, np.arange(40), np.zeros(40, np.int64)
    )
    predicted = labels[:, 1:-1] != IGNORED
    assert predicted.any(axis=1).all()
    for group in groups:
        assert (predicted[:, group].sum(axis=1) % len(group) == 0).all()
    assert {tuple(row) for row in predicted.tolist()} > {tuple(predicted[0].tolist())}


def test_bytes_of_a_character_cut_in_two_stay_together():
    tokenizer = byte_bpe()
    ids = tokenizer(" ☃grow —", add_special_tokens=False)["input_ids"]
    pieces = tokenizer.convert_ids_to_tokens(ids)
    marks = is_continuation(tokenizer)
    assert pieces[0] == "Ġ"
    assert [bool(marks[index]) for index in ids[1:4]] == [True, True, True], "three bytes of one snowman after its space"


def test_an_added_token_is_special_and_ends_a_word():
    tokenizer = wordpiece()
    tokenizer.add_tokens(["<tag>"], special_tokens=True)
    ids = tokenizer("un<tag>grow", add_special_tokens=False)["input_ids"]
    assert [bool(is_continuation(tokenizer)[index]) for index in ids] == [False, False, False]
