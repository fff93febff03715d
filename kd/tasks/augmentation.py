"""TinyBERT's data augmentation: texts in which words are replaced by what a masked language model or word vectors suggest.

Source: Jiao et al. 2020 (arXiv:1909.10351), algorithm 1. As in the authors' program, a word's candidates come from the original text with
only that word masked. So one pass per word serves all copies. A text's copies depend on the text, the settings and the model alone: not on
the other texts, their order or a batch size. All masked rows of a text have one length, so no compute is spent on padding.
"""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import Tensor

from kd.batch import IGNORED, Batch
from kd.errors import KdError
from kd.models.encoder import Encoder
from kd.tasks.settings import AugmentationSettings

ROW_TOKENS = 16_384
"""Tokens of one forward pass at most, unless one row has more."""


@dataclass(frozen=True)
class Word:
    """A word of a text: characters begin .. end (exclusive), its piece ids, and the position of its first piece in the row."""

    begin: int
    end: int
    pieces: list[int]
    position: int


class Augmenter:
    """Makes copies of texts with a masked-LM encoder and its tokenizer.

    Words of one piece get the encoder's most probable words at their place. Words of several pieces get the nearest words by cosine of
    the encoder's word embeddings, where the mean of the pieces stands for the word. Only whole words of the vocabulary are candidates.
    """

    def __init__(self, encoder: Encoder, tokenizer: Tokenizer, mask_id: int, settings: AugmentationSettings | None = None) -> None:
        self.encoder = encoder
        self.tokenizer = _whole_texts(tokenizer)
        self.mask_id = mask_id
        self.settings = settings or AugmentationSettings()
        self.words = whole_words(self.tokenizer, encoder.vocabulary)
        if len(self.words) <= self.settings.candidates:
            raise KdError(
                f"augmentation: expected more than candidates = {self.settings.candidates} whole words in the vocabulary, "
                f"got {len(self.words)}; lower candidates or use another tokenizer"
            )
        self._ids = torch.tensor(sorted(self.words))
        table = encoder.weight(encoder.family.word_embeddings).detach().float().cpu()
        self._table = table
        self._directions = torch.nn.functional.normalize(table[self._ids], dim=1)
        self._neighbours: dict[tuple[int, ...], list[str]] = {}

    def copies(self, texts: Iterable[str]) -> Iterator[list[str]]:
        """For each text its copies, all different from each other and from the text. A text without words has none."""
        for text in texts:
            words = self._words_of(text)
            yield self._sample(text, words, self._candidates(text, words)) if words else []

    def _words_of(self, text: str) -> list[Word]:
        """The words that can be replaced: with a letter or digit, and whole within the encoder's positions."""
        encoding = self.tokenizer.encode(text)
        places: dict[int, list[int]] = {}
        for place, number in enumerate(encoding.word_ids):
            if number is not None:
                places.setdefault(number, []).append(place)
        words = []
        for found in places.values():
            begin, end = encoding.offsets[found[0]][0], encoding.offsets[found[-1]][1]
            begin += len(text[begin:end]) - len(text[begin:end].lstrip())
            if found[-1] < self.encoder.max_positions - 1 and any(letter.isalnum() for letter in text[begin:end]):
                words.append(Word(begin, end, [encoding.ids[place] for place in found], found[0]))
        return words

    def _candidates(self, text: str, words: list[Word]) -> list[list[str]]:
        """The candidates of each word."""
        single = [number for number, word in enumerate(words) if len(word.pieces) == 1]
        found = dict(zip(single, self._by_language_model(text, [words[number] for number in single]), strict=True))
        return [found[number] if number in found else self._by_embedding(word.pieces) for number, word in enumerate(words)]

    @torch.no_grad()
    def _by_language_model(self, text: str, words: list[Word]) -> list[list[str]]:
        """For each word of one piece, the most probable other words at its place."""
        device = self.encoder.decoder_weight.device
        every = self.tokenizer.encode(text).ids
        row = torch.tensor(every if len(every) <= self.encoder.max_positions else [*every[: self.encoder.max_positions - 1], every[-1]])
        rows = max(1, ROW_TOKENS // len(row))
        ids = self._ids.to(device)
        found: list[list[str]] = []
        with self.encoder.evaluating():
            for begin in range(0, len(words), rows):
                part = words[begin : begin + rows]
                places = torch.tensor([word.position for word in part])
                masked = row.repeat(len(part), 1)
                masked[torch.arange(len(part)), places] = self.mask_id
                hidden = self.encoder(_batch(masked).to(device)).last_hidden
                logits = self.encoder.logits(hidden[torch.arange(len(part), device=device), places.to(device)])[:, ids].float()
                own = torch.tensor([word.pieces[0] for word in part], device=device)
                logits = logits.masked_fill(ids == own[:, None], -torch.inf)
                best = logits.topk(self.settings.candidates, dim=1).indices
                found += [[self.words[int(word)] for word in ids[choice].tolist()] for choice in best]
        return found

    def _by_embedding(self, pieces: list[int]) -> list[str]:
        """The nearest words of a word of several pieces."""
        key = tuple(pieces)
        if key not in self._neighbours:
            direction: Tensor = self._table[pieces].mean(dim=0)
            nearest = (self._directions @ direction).topk(self.settings.candidates).indices
            self._neighbours[key] = [self.words[int(word)] for word in self._ids[nearest].tolist()]
        return self._neighbours[key]

    def _sample(self, text: str, words: list[Word], candidates: list[list[str]]) -> list[str]:
        """Different copies. After ten times as many draws as copies the text is taken to have no more."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        generator = np.random.default_rng([self.settings.seed, int.from_bytes(digest, "big")])
        copies: dict[str, None] = {}
        for _ in range(10 * self.settings.copies):
            replaced = generator.random(len(words)) <= self.settings.probability
            choices = generator.integers(0, self.settings.candidates, len(words))
            parts, end = [], 0
            for word, options, replace, choice in zip(words, candidates, replaced, choices, strict=True):
                parts += [text[end : word.begin], options[choice] if replace else text[word.begin : word.end]]
                end = word.end
            copy = "".join([*parts, text[end:]])
            if copy != text:
                copies[copy] = None
            if len(copies) == self.settings.copies:
                break
        return list(copies)


def whole_words(tokenizer: Tokenizer, vocabulary: int) -> dict[int, str]:
    """Ids of the words that the tokenizer reads as one piece after a blank: id -> text. Continuations and special tokens are left out."""
    tokenizer = _whole_texts(tokenizer)
    ids = [number for number in sorted(tokenizer.get_vocab().values()) if number < vocabulary]
    special = {number for number, token in tokenizer.get_added_tokens_decoder().items() if token.special}
    texts = {number: tokenizer.decode([number]).strip() for number in ids if number not in special}
    texts = {number: text for number, text in texts.items() if text and all(letter.isalnum() for letter in text)}
    encodings = tokenizer.encode_batch([f" {text}" for text in texts.values()], add_special_tokens=False)
    return {number: text for (number, text), encoding in zip(texts.items(), encodings, strict=True) if encoding.ids == [number]}


def _whole_texts(tokenizer: Tokenizer) -> Tokenizer:
    """A copy that neither cuts nor pads."""
    copy: Tokenizer = Tokenizer.from_str(tokenizer.to_str())
    copy.no_truncation()
    copy.no_padding()
    return copy


def _batch(ids: Tensor) -> Batch:
    """Rows of one document each, without padding."""
    positions = torch.arange(ids.shape[1]).expand_as(ids)
    return Batch(ids, torch.full_like(ids, IGNORED), positions, torch.ones_like(ids), windows=torch.zeros(len(ids), dtype=torch.int64))
