"""Masked sentences: which token is asked, and how its surroundings are written."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from kd.batch import IGNORED, Batch
from launcher.training.diagnostics.guesses import GUESSES, TEXT_LIMIT, Sample, Words, asked_positions

PAD, MASK, CLS, SEP = 0, 1, 2, 3
NAMES = ["[PAD]", "[MASK]", "[CLS]", "[SEP]", "[UNK]", *(f"w{n}" for n in range(5, 40))]


def words() -> Words:
    backend = Tokenizer(models.WordLevel({name: n for n, name in enumerate(NAMES)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"pad_token": "[PAD]", "mask_token": "[MASK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "unk_token": "[UNK]"}
    return Words(PreTrainedTokenizerFast(tokenizer_object=backend, **special), MASK)


def batch(ids: list[list[int]], labels: dict[tuple[int, int], int], segments: list[list[int]]) -> Batch:
    given = torch.tensor(ids)
    wanted = torch.full_like(given, IGNORED)
    for place, label in labels.items():
        wanted[place] = label
    return Batch(given, wanted, torch.zeros_like(given), torch.tensor(segments), torch.arange(len(ids)))


def test_the_middle_masked_token_of_a_row_is_asked_and_shown_or_swapped_ones_are_not():
    rows = batch(
        [[CLS, MASK, 6, MASK, 8, MASK, SEP], [CLS, 5, 6, 7, 8, 9, SEP], [CLS, 5, MASK, 7, SEP, PAD, PAD]],
        {(0, 1): 5, (0, 3): 7, (0, 5): 9, (1, 2): 20, (2, 2): 30},  # row 1: the token is swapped, not masked
        [[1] * 7, [1] * 7, [1] * 5 + [0] * 2],
    )
    places = asked_positions(rows, MASK)
    assert [place.tolist() for place in places] == [[0, 2], [3, 2]]
    assert words().around(rows, 0, 3) == "_ w6 [MASK] w8 _"
    assert words().around(rows, 2, 2) == "w5 [MASK] w7"


def test_the_text_ends_with_its_document_and_is_bounded():
    rows = batch([[CLS, 5, 6, SEP, CLS, 7, MASK, 8, SEP]], {(0, 6): 9}, [[1] * 4 + [2] * 5])
    assert words().around(rows, 0, 6) == "w7 [MASK] w8"
    long = batch([[30] * 200 + [MASK] + [31] * 200], {(0, 200): 5}, [[1] * 401])
    text = words().around(long, 0, 200)
    assert len(text) <= TEXT_LIMIT
    assert text.count("w30") == 24


def test_guesses_are_the_most_probable_tokens_in_order():
    logits = torch.zeros(1, len(NAMES))
    logits[0, 10], logits[0, 12] = 5.0, 4.0
    (guesses,) = words().guesses(logits)
    assert [word for word, _ in guesses[:2]] == ["w10", "w12"]
    assert len(guesses) == GUESSES
    line = Sample("window 0, token 3", "a [MASK]", "w10", guesses, []).line(7)
    assert (line["prediction"], line["label"], line["update"], line["teacher"]) == ("w10", "w10", 7, [])
