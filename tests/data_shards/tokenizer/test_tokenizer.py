"""The tokenizer of a corpus: special ids, marks of words, a fingerprint that a save keeps."""

import json
import shutil

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from data_shards.errors import DataError
from data_shards.storage.manifest import smallest_dtype
from data_shards.tokenizer.fingerprint import tokenizer_fingerprint
from data_shards.tokenizer.tokenizer import SpecialIds, is_continuation, is_special, load_tokenizer, special_ids, vocabulary_size


def test_special_ids_of_both_families(wordpiece, byte_bpe):
    assert special_ids(load_tokenizer(str(wordpiece))) == SpecialIds(cls_id=2, sep_id=3, pad_id=0, mask_id=4)
    assert special_ids(load_tokenizer(str(byte_bpe))) == SpecialIds(cls_id=0, sep_id=2, pad_id=1, mask_id=4)


def test_specials_are_marked(wordpiece, byte_bpe):
    for folder in (wordpiece, byte_bpe):
        tokenizer = load_tokenizer(str(folder))
        assert np.flatnonzero(is_special(tokenizer)).tolist() == [0, 1, 2, 3, 4]


def test_continuations_are_marked_by_each_familys_own_sign(wordpiece, byte_bpe):
    tokenizer = load_tokenizer(str(wordpiece))
    marked = {tokenizer.convert_ids_to_tokens(int(index)) for index in np.flatnonzero(is_continuation(tokenizer))}
    assert marked == {token for token in tokenizer.get_vocab() if token.startswith("##")}
    assert marked
    tokenizer = load_tokenizer(str(byte_bpe))
    marks = is_continuation(tokenizer)
    words = tokenizer("amber birch", add_special_tokens=False)["input_ids"]
    starts = [index for index in words if not marks[index]]
    assert [tokenizer.convert_ids_to_tokens(index)[0] for index in starts] == ["Ġ"], "only the second word is marked as one"


def test_a_metaspace_vocabulary_marks_what_has_no_metaspace():
    backend = Tokenizer(models.Unigram([("<unk>", 0.0), ("▁a", -1.0), ("b", -2.0)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")
    assert is_continuation(tokenizer).tolist() == [False, False, True]


def test_the_fingerprint_survives_a_save_and_ignores_truncation(wordpiece, tmp_path):
    tokenizer = load_tokenizer(str(wordpiece))
    before = tokenizer_fingerprint(tokenizer)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(tmp_path)
    assert tokenizer_fingerprint(tokenizer) == tokenizer_fingerprint(AutoTokenizer.from_pretrained(tmp_path)) == before


def test_another_vocabulary_or_normaliser_has_another_fingerprint(wordpiece, byte_bpe):
    tokenizer = load_tokenizer(str(wordpiece))
    prints = {tokenizer_fingerprint(tokenizer), tokenizer_fingerprint(load_tokenizer(str(byte_bpe)))}
    tokenizer.add_tokens(["quux"])
    prints.add(tokenizer_fingerprint(tokenizer))
    tokenizer.backend_tokenizer.normalizer = None
    prints.add(tokenizer_fingerprint(tokenizer))
    assert len(prints) == 4


def test_a_tokenizer_without_a_mask_is_refused_by_name(wordpiece):
    backend = load_tokenizer(str(wordpiece)).backend_tokenizer
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, cls_token="[CLS]", pad_token="[PAD]")
    with pytest.raises(DataError, match="got none for sep, mask"):
        special_ids(tokenizer, "some")


@pytest.mark.parametrize(("token", "kind"), [("pad_token", "pad"), ("cls_token", "cls")])
def test_a_mask_that_is_another_special_token_is_refused_by_name(wordpiece, token, kind):
    tokenizer = load_tokenizer(str(wordpiece))
    setattr(tokenizer, token, tokenizer.mask_token)
    with pytest.raises(
        DataError, match=rf"tokenizer some: expected a mask token of its own, got '\[MASK\]', which is also its {kind} token"
    ):
        special_ids(tokenizer, "some")


@pytest.mark.parametrize("name", ["/absent/folder", "./absent"])
def test_an_absent_tokenizer_is_one_line(name):
    with pytest.raises(DataError, match=r"expected a folder with tokenizer\.json, got no folder") as error:
        load_tokenizer(name)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_tokenizer_is_one_line(tmp_path):
    with pytest.raises(DataError, match=r"expected tokenizer.json, vocab.txt or another tokenizer file in that folder, got none") as error:
        load_tokenizer(str(tmp_path))
    assert "\n" not in str(error.value)


def test_the_dtype_is_the_smallest_that_holds_every_id(numbered_tokenizer):
    assert vocabulary_size(numbered_tokenizer) == 700
    assert [smallest_dtype(size) for size in (256, 257, 65536, 65537)] == ["uint8", "uint16", "uint16", "uint32"]


def with_pipeline(folder, place, **parts):
    """A copy of a tokenizer folder whose tokenizer.json has another normalizer or pre-tokenizer, and whose class would build its own."""
    shutil.copytree(folder, place)
    content = json.loads((place / "tokenizer.json").read_text())
    (place / "tokenizer.json").write_text(json.dumps(content | parts))
    config = json.loads((place / "tokenizer_config.json").read_text())
    (place / "tokenizer_config.json").write_text(json.dumps(config | {"tokenizer_class": "BertTokenizer"}))
    return place


@pytest.mark.parametrize(
    "parts",
    [
        {"normalizer": {"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"}]}},
        {"pre_tokenizer": {"type": "WhitespaceSplit"}},
        {"normalizer": None},
    ],
)
def test_ids_are_those_of_tokenizer_json_also_after_a_save(wordpiece, tmp_path, parts):
    folder = with_pipeline(wordpiece, tmp_path / "own", **parts)
    text = "AMBER, birch\uff0ccedar! \ufb01sh"
    backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
    backend.no_padding()
    backend.no_truncation()
    expected = backend.encode(text, add_special_tokens=False).ids
    tokenizer = load_tokenizer(str(folder))
    tokenizer.save_pretrained(tmp_path / "again")
    for one in (tokenizer, load_tokenizer(str(tmp_path / "again")), AutoTokenizer.from_pretrained(tmp_path / "again")):
        assert one(text, add_special_tokens=False, truncation=False, padding=False)["input_ids"] == expected
        assert special_ids(one) == special_ids(load_tokenizer(str(wordpiece)))


@pytest.mark.parametrize("files", [["config.json"], ["config.json", "tokenizer_config.json"], ["special_tokens_map.json", "merges.txt"]])
def test_a_model_folder_without_a_vocabulary_is_one_line(tmp_path, files):
    for name in files:
        (tmp_path / name).write_text('{"model_type": "bert"}')
    with pytest.raises(
        DataError, match=r"expected tokenizer\.json, vocab\.txt or another tokenizer file in that folder, got none; copy it"
    ):
        load_tokenizer(str(tmp_path))


def test_a_vocabulary_of_special_tokens_alone_is_refused(tmp_path):
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    backend = Tokenizer(models.WordPiece({name: index for index, name in enumerate(names)}, unk_token="[UNK]"))
    special = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), names, strict=True))
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(tmp_path)
    with pytest.raises(DataError, match="expected a vocabulary with ordinary tokens, got 5 special ones alone"):
        load_tokenizer(str(tmp_path))


def test_a_bpe_model_that_drops_what_it_does_not_know_is_refused(tmp_path):
    backend = Tokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]").save_pretrained(tmp_path)
    with pytest.raises(DataError, match="got a BPE model without either, which drops them"):
        load_tokenizer(str(tmp_path))
