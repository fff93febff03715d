"""Augmented texts: candidates against transformers and a float64 search, their number and probability, and what must not matter."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedModel

from kd.errors import KdError
from kd.models.encoder import Encoder
from kd.tasks.augmentation import Augmenter, whole_words
from kd.tasks.settings import AugmentationSettings

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [f"word{chr(97 + n // 10)}{chr(97 + n % 10)}" for n in range(90)]
VOCABULARY = [*SPECIAL, *WORDS, "the", "film", "good", "un", "##lik", "##ely", "##s", ".", ",", "!"]
TEXT = "The film, wordaa wordab: unlikely GOOD!"


@pytest.fixture
def tokenizer() -> Tokenizer:
    """WordPiece without upper case, as BERT has it, over the 120 ids of the tiny models."""
    filled = [*VOCABULARY, *(f"##{n}" for n in range(120 - len(VOCABULARY)))]
    made = Tokenizer(models.WordPiece({token: number for number, token in enumerate(filled)}, unk_token="[UNK]"))
    made.add_special_tokens(SPECIAL)
    made.normalizer = normalizers.BertNormalizer(lowercase=True)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    made.enable_truncation(4)
    made.enable_padding(length=32)
    return made


@pytest.fixture
def model(make_model: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    return make_model("bert")


def augmenter(model: PreTrainedModel, tokenizer: Tokenizer, **settings: object) -> Augmenter:
    return Augmenter(Encoder(model), tokenizer, 4, AugmentationSettings.model_validate(settings))


def one(made: Augmenter, text: str = TEXT) -> list[str]:
    (copies,) = made.copies([text])
    return copies


def test_only_whole_words_are_candidates(tokenizer: Tokenizer):
    words = whole_words(tokenizer, 120)
    assert sorted(words.values()) == sorted([*WORDS, "the", "film", "good", "un"])
    assert all(VOCABULARY[number] == text for number, text in words.items())


def test_a_word_of_one_piece_gets_what_transformers_finds_most_probable_at_its_place(model: PreTrainedModel, tokenizer: Tokenizer):
    made = augmenter(model, tokenizer, candidates=5, probability=1.0, copies=200)
    pieces = "[CLS] the film , wordaa wordab [UNK] un ##lik ##ely good ! [SEP]"
    ids = [VOCABULARY.index(piece) for piece in pieces.split()]
    allowed = whole_words(tokenizer, 120)
    copies = [copy.replace(",", " ,").replace(":", " :").replace("!", " !").split() for copy in one(made)]
    for place, column in ((1, 0), (2, 1), (4, 3), (5, 4), (10, 7)):
        masked = torch.tensor([[4 if n == place else number for n, number in enumerate(ids)]])
        logits = model(masked, attention_mask=torch.ones_like(masked)).logits[0, place].detach()
        ranked = [int(n) for n in logits.argsort(descending=True) if int(n) in allowed and int(n) != ids[place]]
        assert {copy[column] for copy in copies} == {allowed[n] for n in ranked[:5]}


def test_a_word_of_several_pieces_gets_the_nearest_embeddings(model: PreTrainedModel, tokenizer: Tokenizer):
    table = model.get_input_embeddings().weight.detach().double().numpy()
    mean = table[[VOCABULARY.index(piece) for piece in ("un", "##lik", "##ely")]].mean(axis=0)
    allowed = whole_words(tokenizer, 120)
    cosine = {text: table[n] @ mean / np.linalg.norm(table[n]) / np.linalg.norm(mean) for n, text in allowed.items()}
    expected = set(sorted(cosine, key=cosine.__getitem__, reverse=True)[:5])
    copies = one(augmenter(model, tokenizer, candidates=5, probability=1.0, copies=200), "unlikely.")
    assert {copy.removesuffix(".") for copy in copies} == expected


def test_copies_differ_and_keep_everything_but_words(model: PreTrainedModel, tokenizer: Tokenizer):
    copies = one(augmenter(model, tokenizer))
    assert len(set(copies)) == len(copies) == 20
    assert TEXT not in copies
    assert all(copy.count(" ") == TEXT.count(" ") for copy in copies)
    marks = [[letter for letter in text if not letter.isalnum()] for text in (TEXT, *copies)]
    assert all(kept == marks[0] for kept in marks)


def test_a_word_is_replaced_with_the_probability_of_the_settings(model: PreTrainedModel, tokenizer: Tokenizer):
    """2,000 words at 0.4: a standard error of 1.1 %. A draw without a replacement (0.6^10 of them) makes no copy."""
    text = " ".join(WORDS[:10])
    copies = one(augmenter(model, tokenizer, copies=200), text)
    kept = [word == original for copy in copies for word, original in zip(copy.split(), WORDS[:10], strict=True)]
    assert 1 - np.mean(kept) == pytest.approx(0.4 / (1 - 0.6**10), abs=0.035)


def test_neither_other_texts_nor_their_order_matter(model: PreTrainedModel, tokenizer: Tokenizer):
    made = augmenter(model, tokenizer, copies=3)
    together = list(made.copies(["the film", TEXT, "wordaa wordab wordac"]))
    assert together[1] == one(made)
    assert list(made.copies(["wordaa wordab wordac", TEXT, "the film"])) == together[::-1]
    assert one(augmenter(model, tokenizer, copies=3)) == together[1]
    assert one(augmenter(model, tokenizer, copies=3, seed=1)) != together[1]


def test_the_split_into_passes_does_not_matter(model: PreTrainedModel, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch):
    whole = one(augmenter(model, tokenizer))
    monkeypatch.setattr("kd.tasks.augmentation.ROW_TOKENS", 30)
    assert one(augmenter(model, tokenizer)) == whole


def test_texts_without_words_and_with_few_words(model: PreTrainedModel, tokenizer: Tokenizer):
    made = augmenter(model, tokenizer)
    assert list(made.copies(["", " ", "!!! ..."])) == [[], [], []]
    assert len(one(made, "film")) == 15, "one word has as many copies as candidates"


def test_words_beyond_the_models_positions_stay(model: PreTrainedModel, tokenizer: Tokenizer):
    text = " ".join(WORDS[:60])
    copies = one(augmenter(model, tokenizer, probability=1.0, copies=2), text)
    for copy in copies:
        same = [word == original for word, original in zip(copy.split(), WORDS[:60], strict=True)]
        assert same == [False] * 38 + [True] * 22  # 40 positions with [CLS] and [SEP]


def test_a_byte_level_vocabulary_works_as_well(make_model: Callable[..., PreTrainedModel]):
    letters = [*sorted(pre_tokenizers.ByteLevel.alphabet())[:89], "Ġ"]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *letters, *(f"Ġ{letter}" for letter in "abcdefghijklmnopqrst")]
    bpe = models.BPE({token: n for n, token in enumerate(tokens)}, [("Ġ", letter) for letter in "abcdefghijklmnopqrst"], unk_token="<unk>")
    made = Tokenizer(bpe)
    made.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    copies = one(Augmenter(Encoder(make_model("roberta")), made, 4, AugmentationSettings(candidates=5)), "a b, c d")
    assert copies
    assert all(len(copy) == 8 and copy[3] == "," and copy[1] == copy[4] == copy[6] == " " for copy in copies)


def test_a_vocabulary_with_too_few_words_is_one_line(model: PreTrainedModel, tokenizer: Tokenizer):
    with pytest.raises(KdError, match="expected more than candidates = 94 whole words in the vocabulary, got 94; lower candidates"):
        augmenter(model, tokenizer, candidates=94)
