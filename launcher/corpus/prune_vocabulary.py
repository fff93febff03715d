"""`stillhouse vocabulary prune`: a model, its tokenizer and its shards with the most frequent pieces only; needs no text."""

import argparse
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from data_shards.build.remap import remap_shards, same_tokenizer
from data_shards.corpus import Corpus
from data_shards.storage.manifest import Manifest
from data_shards.tokenizer.pruning import pieces_to_keep, pruned_tokenizer
from data_shards.tokenizer.tokenizer import load_tokenizer
from kd.export.hugging_face import save_student
from kd.export.model_card import CardFacts, is_hub_name, model_title
from kd.models.config import read_config
from kd.models.loading import load_mlm
from kd.models.prune_vocabulary import with_rows
from kd.models.sizes import model_sizes
from launcher.errors import LaunchError
from launcher.tables import PlainConsole
from launcher.text import size as shown_size

MODEL, SHARDS = "model", "shards"


@dataclass(frozen=True)
class Pruned:
    """The result: entries and bytes of the model before and after; ids of both splits without special tokens."""

    entries: tuple[int, int]
    bytes: tuple[int, int]
    parameters: tuple[int, int]
    tokens: tuple[int, int] | None
    """None where no shards were written."""
    covered: float
    """Share of the train split's ids that are unchanged."""


def run(arguments: argparse.Namespace) -> int:
    """Run the verb; its exit code."""
    pruned = prune(arguments.model, arguments.shards, Path(arguments.out), arguments.size, not arguments.no_shards, arguments.cache_folder)
    show(pruned, Path(arguments.out), PlainConsole())
    return 0


def prune(model: str, shards: str, out: Path, size: int, with_shards: bool = True, cache_folder: str | None = None) -> Pruned:
    """Write OUT/model (Hugging Face, with its tokenizer) and OUT/shards. Arguments are checked before anything heavy is read.

    Raises LaunchError for an OUT that is not free; KdError and DataError for a model, shards or a size that cannot be used.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise LaunchError(f"--out {out}: expected a free name, got something there; choose another or remove it")
    read_config(model)
    corpus = Corpus.open(shards, cache_folder)
    manifest, counts = corpus.manifest, corpus.token_statistics.counts
    tokenizer = load_tokenizer(model)
    same_tokenizer(tokenizer, manifest, model)
    kept = pieces_to_keep(tokenizer, counts, size)
    smaller = pruned_tokenizer(tokenizer, kept)
    after = remap_shards(corpus, out / SHARDS, smaller, kept) if with_shards else None
    whole = load_mlm(model)
    encoder = with_rows(whole, kept.tolist())
    covered = float(counts[kept].sum()) / max(1.0, float(counts.sum()))
    with tempfile.TemporaryDirectory() as folder:
        smaller.save_pretrained(folder)
        made = {
            "made from": model_title(model),
            "vocabulary before": manifest.vocabulary_size,
            "ids of the corpus that stayed": f"{covered:.2%}",
        }
        card = CardFacts(title=out.resolve().name, base_models=[model] if is_hub_name(model) else [], training=made)
        save_student(encoder, out / MODEL, tokenizer_folder=Path(folder), card=card)
    sizes = model_sizes(whole), model_sizes(encoder)
    return Pruned(
        entries=(whole.vocabulary, encoder.vocabulary),
        bytes=(sizes[0].bytes, sizes[1].bytes),
        parameters=(sizes[0].parameters, sizes[1].parameters),
        tokens=None if after is None else (_tokens(manifest), _tokens(after)),
        covered=covered,
    )


def show(pruned: Pruned, out: Path, console: Console) -> None:
    """A table of before and after."""
    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column()
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    lines: list[tuple[str, tuple[int, int]]] = [("vocabulary", pruned.entries), ("parameters", pruned.parameters)]
    for name, (before, after) in [*lines, *([("tokens in the shards", pruned.tokens)] if pruned.tokens else [])]:
        table.add_row(name, f"{before:,}", f"{after:,}", f"{after / before - 1:+.1%}")
    table.add_row("bytes, fp32", *map(shown_size, pruned.bytes), f"{pruned.bytes[1] / pruned.bytes[0] - 1:+.1%}")
    console.print(table)
    console.print(f"{pruned.covered:.2%} of the train split's ids stayed as they were", highlight=False)
    console.print(f"model:  {out / MODEL}", soft_wrap=True, highlight=False)
    if pruned.tokens:
        console.print(f"shards: {out / SHARDS}", soft_wrap=True, highlight=False)


def _tokens(manifest: Manifest) -> int:
    return sum(manifest.tokens(split) for split in manifest.splits)
