"""Pruned vocabularies: what stays, that text survives, and that re-mapped shards are those that a build with the pruned tokenizer makes."""

import json
import random
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_shards.build import build as build_module
from data_shards.build import remap as remap_module
from data_shards.build.build import build
from data_shards.build.remap import remap_shards, remapper, same_tokenizer
from data_shards.build.settings import BuildSettings
from data_shards.errors import DataError
from data_shards.info import info
from data_shards.sources.settings import SourceSettings
from data_shards.storage.location import Location
from data_shards.storage.manifest import Manifest
from data_shards.storage.token_statistics import TokenStatistics
from data_shards.tokenizer.fingerprint import plain_json
from data_shards.tokenizer.pruning import pieces_to_keep, pruned_tokenizer
from data_shards.tokenizer.tokenizer import load_tokenizer, special_ids, vocabulary_size
from data_shards.tokenizer.workers import encoder
from data_shards.verify import verify

BERT = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ROBERTA = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
KINDS = ("wordpiece", "byte_bpe", "unigram", "sentencepiece_bpe")


def _texts(count: int, seed: int) -> list[str]:
    """Documents of words made of syllables, some words far more frequent than others, with capitals, accents, digits, marks and a ☃."""
    rng = random.Random(seed)
    syllables = "ba be di do fu ga ké la mo ni ör pa ri su ta vé wo zu".split()  # noqa: SIM905
    spell = random.Random(0)
    lexicon = ["".join(spell.choices(syllables, k=spell.randint(1, 4))) for _ in range(150)]
    weights = [1 / (rank + 1) for rank in range(len(lexicon))]
    documents = []
    for number in range(count):
        words = rng.choices(lexicon, weights, k=rng.randint(2, 40))
        words = [word.capitalize() if rng.random() < 0.1 else word + rng.choice(["", "", "", ",", ".", "'s", "-", " 17"]) for word in words]
        if number % 9 == 0:
            words.insert(1, rng.choice(["☃", "x" * 120, "<mask>"]))
            words.insert(1, rng.choice(["☃", "<mask>"]).join(rng.choices(lexicon, k=2)))  # unknown, or added, in the middle of a word
        documents.append(" ".join(words))
    return documents


def _trained(kind: str) -> PreTrainedTokenizerFast:
    texts = [text.replace("☃", "") for text in _texts(300, seed=5)]
    if kind == "wordpiece":
        backend = Tokenizer(models.WordPiece(unk_token="[UNK]", max_input_chars_per_word=100))
        backend.normalizer = normalizers.BertNormalizer()
        backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        backend.decoder = decoders.WordPiece()
        backend.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=260, special_tokens=BERT, show_progress=False))
        backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
        pad, unk, cls, sep, mask = BERT
        return PreTrainedTokenizerFast(
            tokenizer_object=backend, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask, model_max_length=512
        )
    if kind == "byte_bpe":
        backend = Tokenizer(models.BPE(unk_token="<unk>"))
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        backend.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=460, special_tokens=ROBERTA, show_progress=False, initial_alphabet=alphabet)
        backend.train_from_iterator(texts, trainer)
        backend.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    else:
        pre_tokenizer, decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        if kind == "unigram":
            backend = Tokenizer(models.Unigram())
            trainer = trainers.UnigramTrainer(vocab_size=200, special_tokens=ROBERTA, unk_token="<unk>", show_progress=False)
        else:
            backend = Tokenizer(models.BPE(unk_token="<unk>"))
            trainer = trainers.BpeTrainer(vocab_size=260, special_tokens=ROBERTA, show_progress=False)
        backend.pre_tokenizer, backend.decoder = pre_tokenizer, decoder
        backend.train_from_iterator(texts, trainer)
        backend.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    cls, pad, sep, unk, mask = ROBERTA
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token=pad, unk_token=unk, cls_token=cls, sep_token=sep, mask_token=mask)


class InThisProcess:
    """A pool without processes."""

    def __init__(self, tokenizer_json: str, dtype: str, processes: int) -> None:
        self._encode = encoder(tokenizer_json, dtype)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def submit(self, texts: list[bytes]):
        future = Future()
        future.set_result(self._encode([text.decode() for text in texts]))
        return future


@pytest.fixture(scope="module")
def build_shards(tmp_path_factory) -> Callable[[Path, str], Path]:
    """build_shards(tokenizer folder, name): 250 documents as shards, in this process."""
    source = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in _texts(250, seed=6)))

    def make(tokenizer: Path, name: str) -> Path:
        folder = tmp_path_factory.mktemp(name) / "shards"
        settings = BuildSettings(
            sources=(SourceSettings(path=str(source)),), tokenizer=str(tokenizer), heldout=0.1, block_tokens=500, shard_tokens=1500
        )
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build_module, "TokeniserPool", InThisProcess)
            build(settings, folder, processes=1)
        return folder

    return make


@pytest.fixture(scope="module", params=KINDS)
def whole(request, tmp_path_factory, build_shards):
    """(kind, tokenizer, its shards, counts) of one kind."""
    folder = tmp_path_factory.mktemp(request.param)
    _trained(request.param).save_pretrained(folder)
    shards = build_shards(folder, f"{request.param}-shards")
    manifest = Manifest.load(shards)
    return request.param, load_tokenizer(str(folder)), shards, TokenStatistics.load(Location.of(shards), manifest).counts


def _floor(tokenizer, counts) -> int:
    with pytest.raises(DataError, match="expected at least") as error:
        pieces_to_keep(tokenizer, counts, 1)
    return int(str(error.value).split("at least ")[1].split(",")[0])


@pytest.fixture(scope="module")
def pruned(whole, tmp_path_factory):
    """(folder of the pruned tokenizer, kept ids): three quarters of what may go are gone."""
    kind, tokenizer, _, counts = whole
    size = (3 * _floor(tokenizer, counts) + vocabulary_size(tokenizer)) // 4
    kept = pieces_to_keep(tokenizer, counts, size)
    folder = tmp_path_factory.mktemp(f"{kind}-pruned")
    pruned_tokenizer(tokenizer, kept).save_pretrained(folder)
    return folder, kept


def test_special_tokens_and_single_characters_stay_and_frequent_pieces_are_kept(whole, pruned):
    _, tokenizer, _, counts = whole
    small = load_tokenizer(str(pruned[0]))
    old, new = tokenizer.get_vocab(), small.get_vocab()
    assert set(new) < set(old)
    assert {token for token in old if len(token.removeprefix("##")) == 1} <= set(new)
    assert vars(special_ids(small)).keys() == vars(special_ids(tokenizer)).keys()
    assert [small.convert_ids_to_tokens(index) for index in vars(special_ids(small)).values()] == [
        tokenizer.convert_ids_to_tokens(index) for index in vars(special_ids(tokenizer)).values()
    ]
    assert all(new[tokenizer.convert_ids_to_tokens(int(old_id))] == new_id for new_id, old_id in enumerate(pruned[1]))
    gone = np.setdiff1d(np.arange(len(counts)), pruned[1])
    assert len(gone) > 10
    assert counts[gone].sum() > 100, "and the corpus has them"
    if json.loads(plain_json(tokenizer))["model"]["type"] != "BPE":  # there a rare piece may be what a frequent one is merged from
        removable = [old[token] for token in new if len(token.removeprefix("##")) > 1 and token not in tokenizer.all_special_tokens]
        assert counts[gone].max() <= max(int(counts[index]) for index in removable)


def test_text_survives_the_round_trip(whole, pruned):
    kind, tokenizer, _, _ = whole
    small = load_tokenizer(str(pruned[0]))
    assert small.model_max_length == tokenizer.model_max_length
    for text in _texts(60, seed=7):
        ids = small(text)["input_ids"]
        assert (ids[0], ids[-1]) == (small.cls_token_id, small.sep_token_id)
        back, before = (each.decode(each(text, add_special_tokens=False)["input_ids"]) for each in (small, tokenizer))
        assert back == before
        if kind == "byte_bpe":
            assert back == text


def test_remapped_shards_are_those_that_a_build_with_the_pruned_tokenizer_makes(whole, pruned, build_shards, tmp_path):
    kind, tokenizer, shards, _ = whole
    folder, kept = pruned
    manifest = remap_shards(shards, tmp_path / "remapped", load_tokenizer(str(folder)), kept)
    built = build_shards(folder, f"{kind}-rebuilt")
    assert manifest.splits == Manifest.load(built).splits, "every tar, by its sha256"
    assert manifest.fingerprint == Manifest.load(built).fingerprint, "and every file beside them"
    assert manifest.tokens("train") > Manifest.load(shards).tokens("train")
    verify(tmp_path / "remapped")
    assert manifest.built_from.settings["remapped_from"]["vocabulary_size"] == vocabulary_size(tokenizer)
    assert info(tmp_path / "remapped").vocabulary_size == len(kept)


def test_only_words_with_a_vanished_piece_are_cut_anew(whole, pruned):
    _, tokenizer, _, _ = whole
    small = load_tokenizer(str(pruned[0]))
    remap = remapper(tokenizer, small, pruned[1])
    kept = set(pruned[1].tolist())
    for text in _texts(40, seed=8):
        ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"])
        new, lengths = remap(ids, np.array([len(ids)]))
        assert new.tolist() == small(text, add_special_tokens=False)["input_ids"]
        assert lengths.tolist() == [len(new)]
        if set(ids.tolist()) <= kept:
            assert pruned[1][new].tolist() == ids.tolist()


def test_a_size_below_what_always_stays_or_not_below_the_present_is_one_line(whole):
    _, tokenizer, _, counts = whole
    floor = _floor(tokenizer, counts)
    with pytest.raises(DataError, match=rf"size: expected at least {floor}, special tokens.*got {floor - 1}; raise it"):
        pieces_to_keep(tokenizer, counts, floor - 1)
    assert len(pieces_to_keep(tokenizer, counts, floor)) == floor
    with pytest.raises(DataError, match="expected fewer than the"):
        pieces_to_keep(tokenizer, counts, vocabulary_size(tokenizer))


def test_a_piece_that_characters_cannot_spell_stays():
    backend = Tokenizer(models.WordPiece({piece: index for index, piece in enumerate([*BERT, "a", "##b", "ab", "aq"])}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")
    kept = pieces_to_keep(tokenizer, np.zeros(9, np.uint64), 8)
    assert kept.tolist() == [0, 1, 2, 3, 4, 5, 6, 8] or 8 in kept.tolist()
    assert "aq" in pruned_tokenizer(tokenizer, kept).get_vocab()


def test_a_bpe_piece_brings_what_it_is_merged_from():
    pieces = [*ROBERTA, "a", "b", "c", "d", "ab", "abc", "cd"]
    vocabulary = {piece: index for index, piece in enumerate(pieces)}
    backend = Tokenizer(models.BPE(vocabulary, [("a", "b"), ("ab", "c"), ("c", "d")], unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>", cls_token="<s>", pad_token="<pad>", sep_token="</s>")
    counts = np.zeros(12, np.uint64)
    counts[vocabulary["abc"]], counts[vocabulary["cd"]] = 100, 50
    floor = 9
    assert [pieces[index] for index in pieces_to_keep(tokenizer, counts, floor + 2)][-2:] == ["ab", "abc"]
    # one place alone does not hold abc with its ab: cd, the next by frequency, takes it
    assert [pieces[index] for index in pieces_to_keep(tokenizer, counts, floor + 1)][-1] == "cd"


def test_another_tokenizer_than_the_shards_and_a_target_that_is_not_free_are_one_line(whole, pruned, tmp_path):
    _, tokenizer, shards, _ = whole
    same_tokenizer(tokenizer, Manifest.load(shards), "model")
    with pytest.raises(DataError, match=r"model: expected the tokenizer .* that the shards were made with"):
        same_tokenizer(load_tokenizer(str(pruned[0])), Manifest.load(shards), "model")
    (tmp_path / "there").write_text("")
    with pytest.raises(DataError, match="expected a free name for the shards"):
        remap_shards(shards, tmp_path, load_tokenizer(str(pruned[0])), pruned[1])


def test_a_tokenizer_whose_words_cannot_be_found_is_sent_to_the_text():
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁a▁b", -1.0), ("▁", -1.0), ("a", -2.0), ("b", -2.0)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace(split=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    kept = pieces_to_keep(tokenizer, np.zeros(5, np.uint64), 4)
    with pytest.raises(DataError, match="build the shards from the text with the pruned tokenizer"):
        remapper(tokenizer, pruned_tokenizer(tokenizer, kept), kept)


def test_a_saved_pruned_tokenizer_is_read_by_transformers_alone(pruned):
    again = AutoTokenizer.from_pretrained(pruned[0])
    assert len(again.get_vocab()) == len(pruned[1])
    assert again.is_fast


def test_a_target_that_failed_half_way_is_gone(whole, pruned, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(remap_module, "finish", full)
    with pytest.raises(DataError, match=r"expected to write the shards there, got .*No space left"):
        remap_shards(whole[2], tmp_path / "target", load_tokenizer(str(pruned[0])), pruned[1])
    assert not (tmp_path / "target").exists()
