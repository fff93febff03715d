"""The tokenizer as a corpus needs it: a fast one with the special tokens of a masked language model, known by a fingerprint."""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from data_shards.errors import DataError
from data_shards.location import Location, one_line
from data_shards.manifest import TOKENIZER, Manifest


@dataclass(frozen=True)
class SpecialIds:
    """Ids that frame, fill and mask a window. RoBERTa's <s> and </s> count as cls and sep."""

    cls_id: int
    sep_id: int
    pad_id: int
    mask_id: int


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """The fast tokenizer of a folder or hub name. Raises DataError when there is none."""
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().is_dir():
        raise DataError(f"tokenizer {name}: expected a folder with tokenizer.json, got no folder; correct the path")
    try:
        tokenizer = AutoTokenizer.from_pretrained(str(Path(name).expanduser()) if name.startswith("~") else name)
    except Exception as error:  # transformers and its hub raise a dozen types for "there is none"
        raise DataError(
            f"tokenizer {name}: expected a folder or hub name of a tokenizer, got {one_line(error)[:200]}; correct the name"
        ) from None
    if not getattr(tokenizer, "is_fast", False):
        raise DataError(
            f"tokenizer {name}: expected a fast tokenizer (tokenizer.json), got {type(tokenizer).__name__}; save it as a fast one"
        )
    return tokenizer


def shards_tokenizer(location: Location, manifest: Manifest) -> PreTrainedTokenizerBase:
    """The tokenizer that a shard folder or URL carries. Raises DataError when its files are not those that were promised."""
    with tempfile.TemporaryDirectory() as copy:
        for name in manifest.sidecars:
            if name.startswith(f"{TOKENIZER}/"):
                (Path(copy) / Path(name).name).write_bytes(manifest.sidecar(location, name))
        return load_tokenizer(copy)


def special_ids(tokenizer: Any, name: str = "tokenizer") -> SpecialIds:
    """The four ids that a corpus needs. Raises DataError naming those that the tokenizer lacks."""
    cls_id = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    sep_id = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    found = {"cls": cls_id, "sep": sep_id, "pad": tokenizer.pad_token_id, "mask": tokenizer.mask_token_id}
    missing = [kind for kind, value in found.items() if value is None]
    if missing:
        raise DataError(
            f"tokenizer {name}: expected the special tokens of a masked language model, got none for {', '.join(missing)}; "
            "choose a masked language model's tokenizer"
        )
    return SpecialIds(cls_id, sep_id, tokenizer.pad_token_id, tokenizer.mask_token_id)


def vocabulary_size(tokenizer: Any) -> int:
    """The largest id plus one."""
    return max(tokenizer.get_vocab().values()) + 1


def is_special(tokenizer: Any) -> NDArray[np.bool_]:
    """Which ids stand for no text. bool [V]."""
    special = np.zeros(vocabulary_size(tokenizer), np.bool_)
    special[list(tokenizer.all_special_ids)] = True
    special[[index for index, token in tokenizer.added_tokens_decoder.items() if token.special]] = True
    return special


def is_continuation(tokenizer: Any) -> NDArray[np.bool_]:
    """Which ids continue the word before them. bool [V]; all False for a tokenizer that does not mark words."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    parts = json.dumps([content.get("pre_tokenizer"), content.get("normalizer"), content.get("decoder")], ensure_ascii=False)
    prefix = model.get("continuing_subword_prefix") if model["type"] in ("WordPiece", "BPE") else None
    if prefix:
        continues = lambda token: token.startswith(prefix)  # noqa: E731
    elif "ByteLevel" in parts:
        continues = lambda token: not token.startswith(("Ġ", "Ċ", "ĉ", "č"))  # noqa: E731
    elif "Metaspace" in parts or "▁" in parts:
        continues = lambda token: not token.startswith("▁")  # noqa: E731
    else:
        continues = lambda token: False  # noqa: E731
    marks = np.zeros(vocabulary_size(tokenizer), np.bool_)
    for token, index in tokenizer.get_vocab().items():
        marks[index] = continues(token)
    return marks & ~is_special(tokenizer)
