"""The cases of a benchmark: three shapes with random weights on invented documents, or a run of the user's own.

Sizes are real, words need not be: time does not depend on them.
"""

import random
from dataclasses import dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import BertConfig, BertForMaskedLM, PreTrainedTokenizerFast

from data_shards.build.build import build
from data_shards.build.settings import BuildSettings
from data_shards.sources.settings import SourceSettings
from kd.models.config import quiet_transformers
from launcher.config.load import load_config
from launcher.config.run_config import RunConfig

VOCABULARY, DOCUMENTS, SEED = 30522, 2000, 7
SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]"}


@dataclass(frozen=True)
class Shape:
    """A BERT teacher; the student has every other layer of it. windows: of 128 tokens per update. positions: of the soft targets."""

    layers: int
    width: int
    heads: int
    windows: int
    positions: str = "masked"

    @property
    def name(self) -> str:
        """As `6x384 to 3x384, masked tokens`."""
        return f"{self.layers}x{self.width} to {self.layers // 2}x{self.width}, {self.positions} tokens"


SHAPES = (
    Shape(6, 384, 12, 16),
    Shape(6, 384, 12, 8, "all"),
    Shape(12, 512, 8, 8),
    Shape(12, 768, 12, 8),
)


@dataclass(frozen=True)
class Case:
    """A name, and the configuration of a run."""

    name: str
    config: RunConfig


def invented(folder: Path, precision: str) -> list[Case]:
    """The three shapes. Their teachers and shards are written into `folder`."""
    tokenizer = _tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    draw = random.Random(SEED)
    words = (" ".join(f"w{int(draw.paretovariate(0.6)) % 30000}" for _ in range(draw.randint(20, 300))) for _ in range(DOCUMENTS))
    (folder / "texts.txt").write_text("\n".join(words), encoding="utf-8")
    source = SourceSettings(path=str(folder / "texts.txt"))
    build(BuildSettings(sources=(source,), tokenizer=str(folder / "tokenizer"), heldout=0.0), folder / "shards", 1)
    return [Case(shape.name, _config(folder, shape, _teacher(folder, shape, tokenizer), precision)) for shape in SHAPES]


def of_run(config: RunConfig) -> list[Case]:
    """A run of the user's own."""
    return [Case(config.name, config)]


def _tokenizer() -> PreTrainedTokenizerFast:
    names = [*SPECIAL.values(), *(f"w{number}" for number in range(VOCABULARY - len(SPECIAL)))]
    backend = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **SPECIAL)


def _teacher(folder: Path, shape: Shape, tokenizer: PreTrainedTokenizerFast) -> Path:
    """The folder of a random teacher of this shape."""
    place = folder / f"teacher-{shape.layers}x{shape.width}"
    if not place.exists():
        torch.manual_seed(SEED)
        sizes = {"hidden_size": shape.width, "num_hidden_layers": shape.layers, "num_attention_heads": shape.heads}
        with quiet_transformers():
            BertForMaskedLM(BertConfig(vocab_size=VOCABULARY, intermediate_size=4 * shape.width, **sizes)).save_pretrained(place)
        tokenizer.save_pretrained(place)
    return place


def _config(folder: Path, shape: Shape, teacher: Path, precision: str) -> RunConfig:
    """The demo's objective on this shape, on one process."""
    terms = f"[{{kind: soft_targets, weight: 5, temperature: 2, positions: {shape.positions}}}, {{kind: mlm, weight: 2}}, {{kind: cosine}}]"
    return load_config(
        "demo",
        [
            *(f"run.folder={folder / 'run'}", f"data.shards={folder / 'shards'}", f"teacher.model={teacher}", "teacher.mode=replicated"),
            *(f"objective={terms}", "student.architecture=same", f"train.precision={precision}", "evaluate.every_updates=null"),
            *(f"train.global_batch={shape.windows}", f"train.micro_batch={shape.windows}"),
        ],
    )
