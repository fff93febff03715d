"""One tiny real corpus for the doors' tests: text, its tokenizer, shards, and a small BERT of that vocabulary."""

import json
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from data_shards.build.build import BuildSettings, build
from data_shards.sources.settings import SourceSettings
from kd.models.config import quiet_transformers
from launcher.config.load import load_config
from launcher.config.run_config import RunConfig

WINDOW_TOKENS, POSITIONS = 32, 48
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
SUBJECTS = ["the miller", "a quiet river", "the old engineer", "her brother", "the harvest", "an early train", "the copper still"]
VERBS = ["remembers", "crosses", "warms", "follows", "repairs", "measures", "leaves behind"]
OBJECTS = ["the northern valley", "seven barrels", "a broken clock", "the winter road", "every letter", "their neighbours"]
ENDINGS = ["before dawn", "without hurry", "in late October", "for the second time", "as nobody expected", "by lamplight"]


@dataclass(frozen=True)
class Corpus:
    """Folders and files that no test may change. texts: the documents; text: the same as JSON lines; model: tokenizer and BERT in one."""

    texts: list[str]
    text: Path
    model: Path
    shards: Path
    vocabulary: int


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """200 documents of one to twelve sentences; a BERT of 4 layers with random weights; shards with a tenth held out."""
    folder = tmp_path_factory.mktemp("corpus")
    draw = random.Random(11)
    texts = [" ".join(_sentence(draw) for _ in range(draw.randint(1, 12))) for _ in range(200)]
    text = folder / "texts.jsonl"
    text.write_text("".join(json.dumps({"text": document}) + "\n" for document in texts), encoding="utf-8")
    vocabulary = {token: index for index, token in enumerate(_vocabulary())}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    model = folder / "model"
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=POSITIONS, **SPECIAL).save_pretrained(model)
    save_bert(model, len(vocabulary), favourite=vocabulary["the"])
    settings = BuildSettings(
        sources=(SourceSettings(path=str(text)),), tokenizer=str(model), heldout=0.1, shard_tokens=3000, block_tokens=1000
    )
    build(settings, folder / "shards", processes=1)
    return Corpus(texts, text, model, folder / "shards", len(vocabulary))


@pytest.fixture
def make_config(corpus: Corpus, tmp_path: Path) -> Callable[..., RunConfig]:
    """make_config(*overrides): configs/tiny.yaml on the corpus, with a folder of the test's own."""

    def make(*overrides: str) -> RunConfig:
        own = [f"run.folder={tmp_path / 'run'}", f"data.shards={corpus.shards}", f"teacher.model={corpus.model}"]
        return load_config("tiny", [*own, *overrides])

    return make


@pytest.fixture
def write_yaml(tmp_path: Path) -> Callable[..., str]:
    """write_yaml(values or text): the path of a file that holds it."""

    def write(content: object) -> str:
        path = tmp_path / "mine.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        return str(path)

    return write


@pytest.fixture
def no_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment of a process that nobody launched."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def save_model() -> Callable[..., None]:
    """save_model(folder, vocabulary, seed=3, layers=4): a random BERT of that vocabulary, in a folder."""
    return save_bert


def save_bert(folder: Path, vocabulary: int, seed: int = 3, layers: int = 4, favourite: int | None = None) -> None:
    """A BERT with random weights, large enough for its outputs to differ from token to token; it likes its favourite id best."""
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=vocabulary,
        hidden_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=POSITIONS,
        initializer_range=0.3,
    )
    model = BertForMaskedLM(config)
    if favourite is not None:
        with torch.no_grad():
            model.cls.predictions.bias[favourite] += 5.0
    with quiet_transformers():
        model.save_pretrained(folder)


def _vocabulary() -> list[str]:
    """Special tokens, letters, and two of three words, so that the others are spelt; fixed, as a trained one is not among equals."""
    words = sorted({word for part in (SUBJECTS, VERBS, OBJECTS, ENDINGS) for phrase in part for word in phrase.lower().split()})
    letters = sorted({letter for word in words for letter in word})
    kept = [word for number, word in enumerate(words) if number % 3 or word == "the"]
    return list(dict.fromkeys([*SPECIAL.values(), ".", *letters, *(f"##{letter}" for letter in letters), *kept]))


def _sentence(draw: random.Random) -> str:
    words = f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(OBJECTS)} {draw.choice(ENDINGS)}."
    return words[0].upper() + words[1:]
