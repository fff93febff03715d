"""The tokenizer as a corpus needs it: a fast one with the special tokens of a masked language model, known by a fingerprint."""

import json
import unicodedata
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from data_shards.errors import DataError
from stillhouse.errors import one_line
from stillhouse.lazy import lazy_module

if TYPE_CHECKING:
    import transformers
    from transformers.utils import hub
else:
    transformers, hub = lazy_module("transformers"), lazy_module("transformers.utils.hub")

SENTENCEPIECE_ENDINGS = (".model", ".spm")
VOCABULARY_FILES = {"tokenizer.json", "vocab.txt", "vocab.json", "vocab.bpe", "bpe.codes", "tokenizer_file"}
"""Files that hold a vocabulary; merges.txt and tokenizer_config.json hold none."""

# GPT-2's alphabet: visible Latin-1 characters are their own byte; characters from 256 on are the other bytes.
_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _VISIBLE} | {chr(256 + n): byte for n, byte in enumerate(sorted(set(range(256)) - set(_VISIBLE)))}


@dataclass(frozen=True)
class SpecialIds:
    """Ids that frame, fill and mask a window. RoBERTa's <s> and </s> count as cls and sep."""

    cls_id: int
    sep_id: int
    pad_id: int
    mask_id: int


def load_tokenizer(name: str) -> "transformers.PreTrainedTokenizerBase":
    """The fast tokenizer of a folder or hub name, with the pipeline of its tokenizer.json. Raises DataError when there is none."""
    path = str(Path(name).expanduser()) if name.startswith("~") else name
    if name.startswith((".", "/", "~")) and not Path(path).is_dir():
        raise DataError(f"tokenizer {name}: expected a folder with tokenizer.json, got no folder; correct the path")
    if Path(path).is_dir():
        _check_files(name, Path(path))
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # transformers and its hub raise a dozen types for "there is none"
        cause = one_line(error)
        if "connect to" in cause or "offline" in cause:
            raise DataError(
                f"tokenizer {name}: expected a folder, or a name that the hub or its cache knows, got neither; "
                "check the name, or the network"
            ) from None
        raise DataError(f"tokenizer {name}: expected a folder or hub name of a tokenizer, got {cause[:200]}; correct the name") from None
    if not getattr(tokenizer, "is_fast", False):
        raise DataError(
            f"tokenizer {name}: expected a fast tokenizer (tokenizer.json), got {type(tokenizer).__name__}; save it as a fast one"
        )
    tokenizer = _with_own_pipeline(tokenizer, path)
    _check_vocabulary(name, tokenizer)
    return tokenizer


def _check_files(name: str, folder: Path) -> None:
    """Raises DataError for a folder without tokenizer files. transformers then makes an empty vocabulary, and every word is unknown."""
    names = {path.name for path in folder.iterdir()}
    if not names & VOCABULARY_FILES and not any(file.endswith(SENTENCEPIECE_ENDINGS) for file in names):
        raise DataError(
            f"tokenizer {name}: expected tokenizer.json, vocab.txt or another tokenizer file in that folder, got none; "
            "copy it from the model that this one was made from"
        )
    model_files = sorted(file for file in names if file.endswith(SENTENCEPIECE_ENDINGS))
    if model_files and not names & VOCABULARY_FILES and find_spec("sentencepiece") is None:
        raise DataError(
            f"tokenizer {name}: expected tokenizer.json, got {model_files[0]} alone, which needs the package sentencepiece; "
            "pip install sentencepiece, or save the tokenizer with tokenizer.json"
        )


def _with_own_pipeline(tokenizer: Any, path: str) -> Any:
    """The tokenizer, or one with the normalizer and pre-tokenizer of its tokenizer.json.

    transformers builds both again from the tokenizer's class; a tokenizer.json with its own would then give other ids.
    PreTrainedTokenizerFast keeps those of the file, also when it is saved and loaded again.
    """
    file = hub.cached_file(
        path, "tokenizer.json", _raise_exceptions_for_missing_entries=False, _raise_exceptions_for_connection_errors=False
    )
    if file is None:
        return tokenizer
    stored, built = json.loads(Path(file).read_text(encoding="utf-8")), json.loads(tokenizer.backend_tokenizer.to_str())
    if all(stored.get(part) == built.get(part) for part in ("normalizer", "pre_tokenizer")):
        return tokenizer
    kept = transformers.PreTrainedTokenizerFast(
        tokenizer_file=file,
        model_max_length=tokenizer.model_max_length,
        padding_side=tokenizer.padding_side,
        **tokenizer.special_tokens_map,
    )
    kept.name_or_path = path
    return kept


def _check_vocabulary(name: str, tokenizer: Any) -> None:
    """Raises DataError for a vocabulary without ordinary tokens, and for a model that drops characters it does not know."""
    if is_special(tokenizer).all():
        raise DataError(
            f"tokenizer {name}: expected a vocabulary with ordinary tokens, got {vocabulary_size(tokenizer)} special ones alone; "
            "copy the tokenizer files from the model that this one was made from"
        )
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    parts = json.dumps([content.get("pre_tokenizer"), content.get("normalizer")])
    if model["type"] == "BPE" and model.get("unk_token") is None and not model.get("byte_fallback") and "ByteLevel" not in parts:
        raise DataError(
            f"tokenizer {name}: expected an unknown token or bytes for characters outside the vocabulary, got a BPE model without either, "
            "which drops them; add an unknown token to tokenizer.json"
        )


def special_ids(tokenizer: Any, name: str = "tokenizer") -> SpecialIds:
    """The four ids that a corpus needs. Raises DataError naming those that the tokenizer lacks."""
    cls_id = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    sep_id = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    ids = {"cls": cls_id, "sep": sep_id, "pad": tokenizer.pad_token_id, "mask": tokenizer.mask_token_id}
    missing = [kind for kind, value in ids.items() if value is None]
    if missing:
        raise DataError(
            f"tokenizer {name}: expected the special tokens of a masked language model, got none for {', '.join(missing)}; "
            "choose a masked language model's tokenizer"
        )
    same = [kind for kind, value in ids.items() if kind != "mask" and value == ids["mask"]]
    if same:
        raise DataError(
            f"tokenizer {name}: expected a mask token of its own, got {tokenizer.mask_token!r}, which is also its {same[0]} token; "
            "correct tokenizer_config.json"
        )
    return SpecialIds(cls_id, sep_id, tokenizer.pad_token_id, tokenizer.mask_token_id)


def vocabulary_size(tokenizer: Any) -> int:
    """The largest id plus one."""
    return max(tokenizer.get_vocab().values()) + 1


def is_special(tokenizer: Any) -> NDArray[np.bool_]:
    """Marks of the ids without text. bool [V]."""
    special = np.zeros(vocabulary_size(tokenizer), np.bool_)
    special[list(tokenizer.all_special_ids)] = True
    special[[index for index, token in tokenizer.added_tokens_decoder.items() if token.special]] = True
    return special


def is_continuation(tokenizer: Any) -> NDArray[np.bool_]:
    """Marks of the ids that continue the word before them. bool [V]; all False for a tokenizer that does not mark words.

    WordPiece: ## pieces. SentencePiece: pieces without ▁, so that punctuation belongs to the word it is written at (as in fairseq).
    Bytes: pieces that neither follow a space nor begin with punctuation, which their pre-tokenizer sets apart.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    parts = json.dumps([content.get("pre_tokenizer"), content.get("normalizer"), content.get("decoder")], ensure_ascii=False)
    prefix = model.get("continuing_subword_prefix") if model["type"] in ("WordPiece", "BPE") else None
    if prefix:
        continues = lambda token: token.startswith(prefix)  # noqa: E731
    elif "ByteLevel" in parts:
        continues = lambda token: not token.startswith(("Ġ", "Ċ", "ĉ", "č")) and not _begins_with_punctuation(token)  # noqa: E731
    elif "Metaspace" in parts or "▁" in parts:
        continues = lambda token: not token.startswith("▁")  # noqa: E731
    else:
        continues = lambda token: False  # noqa: E731
    marks = np.zeros(vocabulary_size(tokenizer), np.bool_)
    for token, index in tokenizer.get_vocab().items():
        marks[index] = continues(token)
    return marks & ~is_special(tokenizer)


def _begins_with_punctuation(token: str) -> bool:
    """True if a byte-level piece begins with a punctuation mark or symbol; False if its first bytes are no character."""
    first = bytes(_BYTES.get(character, 0) for character in token[:4]).decode("utf-8", "ignore")[:1]
    return bool(first) and _BYTES.get(token[:1], 0) not in range(0x80, 0xC0) and unicodedata.category(first)[0] in "PS"
