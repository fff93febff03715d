"""Small corpora: folders of shards from given ids, made without a process; text files and tokenizers for whole builds."""

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from data_shards.build.sidecars import finish
from data_shards.storage.manifest import BuiltFrom, Manifest
from data_shards.storage.shard_writer import SplitWriter

PAD, UNK, CLS, SEP, MASK = range(5)
FIRST_CONTINUATION, VOCABULARY = 600, 700
WORDS = "amber birch cedar dune ember fern grove heather iris juniper kelp larch moss nettle oak pine".split()  # noqa: SIM905


@pytest.fixture(scope="session")
def numbered_tokenizer() -> PreTrainedTokenizerFast:
    """700 ids: 0-4 special, then words, of which 600.. continue the word before. Id n is spelt wn or ##wn."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {name: index for index, name in enumerate(names)}
    vocabulary |= {f"##w{n}" if n >= FIRST_CONTINUATION else f"w{n}": n for n in range(len(names), VOCABULARY)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    backend.decoder = decoders.WordPiece()
    return _wrapped(backend, names)


@pytest.fixture(scope="session")
def make_shards(numbered_tokenizer) -> Callable[..., Manifest]:
    """make_shards(folder, documents, heldout=[], block_tokens=…, shard_tokens=…): shards of documents given as lists of ids."""

    def make(folder: Path, documents: list[list[int]], heldout: list[list[int]] = (), block_tokens: int = 50, shard_tokens: int = 200):
        folder.mkdir(parents=True, exist_ok=True)
        writers = {}
        for split, ids in (("train", documents), ("heldout", heldout)):
            writer = writers[split] = SplitWriter(folder, split, block_tokens, shard_tokens, VOCABULARY, lambda entry: None)
            if ids:
                lengths = np.array([len(document) for document in ids], np.uint32)
                writer.add(np.concatenate(ids).astype(np.uint16), lengths, [b""] * len(ids))
            writer.finish()
        entries = {split: tuple(writer.entries) for split, writer in writers.items()}
        built_from = BuiltFrom(settings={}, documents_read=len(documents), empty=0, duplicate=0, invalid=0)
        return finish(folder, entries, writers["train"].counts, numbered_tokenizer, built_from)

    return make


@pytest.fixture(scope="session")
def random_documents() -> Callable[..., list[list[int]]]:
    """random_documents(count, longest, seed): documents of 1..longest ordinary ids."""

    def make(count: int, longest: int = 40, seed: int = 0) -> list[list[int]]:
        rng = random.Random(seed)
        return [[rng.randrange(5, VOCABULARY) for _ in range(rng.randint(1, longest))] for _ in range(count)]

    return make


@pytest.fixture(scope="session")
def shards(tmp_path_factory, make_shards, random_documents) -> Path:
    """A folder of some ten shards that no test may change."""
    folder = tmp_path_factory.mktemp("shards")
    make_shards(folder, random_documents(120, seed=1), random_documents(9, seed=2))
    return folder


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """300 short documents; the fifth and the last are alike."""
    rng = random.Random(3)
    made = [" ".join(rng.choices(WORDS, k=rng.randint(3, 60))) + "." for _ in range(299)]
    return [*made, made[4]]


@pytest.fixture(scope="session")
def corpus(tmp_path_factory, texts) -> Path:
    """The texts as JSON lines, with two empty documents among them."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    rows = [*texts[:100], "", *texts[100:200], " \n", *texts[200:]]
    path.write_text("".join(json.dumps({"text": text, "number": number}) + "\n" for number, text in enumerate(rows)))
    return path


@pytest.fixture(scope="session")
def wordpiece(tmp_path_factory, texts) -> Path:
    """A BERT-like tokenizer trained on the texts; its tokenizer.json truncates and pads, as many in the wild do."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    backend.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=80, special_tokens=names, show_progress=False))
    backend.enable_truncation(8)
    backend.enable_padding(length=8)
    folder = tmp_path_factory.mktemp("wordpiece")
    _wrapped(backend, names).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def byte_bpe(tmp_path_factory, texts) -> Path:
    """A RoBERTa-like tokenizer trained on the texts."""
    names = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=names, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(texts, trainer)
    folder = tmp_path_factory.mktemp("byte_bpe")
    PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>", mask_token="<mask>"
    ).save_pretrained(folder)
    return folder


def _wrapped(backend: Tokenizer, names: list[str]) -> PreTrainedTokenizerFast:
    pad, unk, cls, sep, mask = names
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask)
