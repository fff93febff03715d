"""What a small run learns from: shards of invented text and a teacher of random weights."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from data_shards.build.build import BuildSettings, build
from data_shards.sources.settings import SourceSettings
from kd.models.config import quiet_transformers

SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}
SYLLABLES = "ba de fi go lu mer nor pel qua ris sto ten".split()  # noqa: SIM905


@dataclass(frozen=True)
class School:
    """Shards and a teacher that no test may change."""

    shards: Path
    teacher: Path


def make_school(folder: Path) -> School:
    """600 documents of invented words in a rhythm, and a random BERT of 4 layers over their vocabulary."""
    draw = random.Random(5)
    words = ["".join(draw.choices(SYLLABLES, k=draw.randint(1, 3))) for _ in range(90)]
    texts = []
    for _ in range(600):
        start = draw.randrange(len(words))
        texts.append(" ".join(words[(start + step * draw.choice((1, 1, 1, 7))) % len(words)] for step in range(draw.randint(5, 80))))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    pieces = [*SPECIAL.values(), *SYLLABLES, *(f"##{syllable}" for syllable in SYLLABLES)]
    backend = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="[UNK]"))
    backend.normalizer = normalizers.BertNormalizer()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    teacher = folder / "teacher"
    PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=64, **SPECIAL).save_pretrained(teacher)
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=backend.get_vocab_size(),
        hidden_size=32,
        num_hidden_layers=4,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    with quiet_transformers():
        BertForMaskedLM(config).save_pretrained(teacher)
    source = SourceSettings(path=str(folder / "texts.jsonl"))
    build(BuildSettings(sources=(source,), tokenizer=str(teacher), heldout=0.1, shard_tokens=5000, block_tokens=1000), folder / "shards", 1)
    return School(folder / "shards", teacher)
