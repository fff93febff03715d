"""Arguments of `stillhouse shards`, `stillhouse vocabulary` and `stillhouse cache`."""

import argparse

from data_shards.sources.formats import BY_KIND
from kd.teacher.modes import MODES
from launcher.commands.common import RAW, Verbs, add_cache_folder, add_config, at_least, part, sentence

SHARDS = "Build tokenised shards of text, and look at them. Formats: docs/data.md."
BUILD = """Tokenise text into a folder of shards. The result does not depend on the number of processes. A build that was killed
goes on with the same command; a complete folder is left as it is. Formats: docs/data.md.
"""
VOCABULARY = "Make a smaller vocabulary for a model and its shards."
PRUNE = """Keep the tokens that a corpus uses most, and write a model and shards with those alone, as OUT/model and OUT/shards."""
CACHE = """Store a teacher's hidden states for the rows of a run, so that any number of later runs can skip its forward pass with
teacher.mode=cached. More: docs/cache.md.
"""
SHARDS_EXAMPLE = """examples:
  stillhouse shards build --out shards/mine --tokenizer bert-base-uncased my_texts/*.txt
  stillhouse shards verify shards/mine
  stillhouse shards info shards/mine
"""
BUILD_EXAMPLE = """examples:
  stillhouse shards build --out shards/mine --tokenizer bert-base-uncased my_texts/*.txt
  stillhouse shards build --out shards/wiki --tokenizer bert-base-uncased --kind dataset --name 20231101.en wikimedia/wikipedia
  stillhouse shards build --out shards/tars --tokenizer ./my_model --kind webdataset 'data/{000..127}.tar' --text json:body
  stillhouse shards build --out shards/logs --tokenizer ./my_model --column body --drop-duplicates logs/*.jsonl.gz
"""
VOCABULARY_EXAMPLE = """example:
  stillhouse vocabulary prune bert-base-uncased --shards shards/mine --size 8000 --out pruned
  stillhouse train --config laptop teacher.model=pruned/model data.shards=pruned/shards
"""
CACHE_EXAMPLE = """example:
  stillhouse cache --config laptop data.shards=shards/mine teacher.mode=cached teacher.cache=caches/mine
  stillhouse train --config laptop data.shards=shards/mine teacher.mode=cached teacher.cache=caches/mine
  torchrun --nproc-per-node 8 -m launcher.cli cache --mode zero3 --config configs/distilbert.yaml
"""


def add_shards(verbs: Verbs) -> None:
    """`stillhouse shards`."""
    shards = verbs.add_parser(
        "shards", help="build, verify and describe tokenised shards", description=SHARDS, epilog=SHARDS_EXAMPLE, formatter_class=RAW
    )
    _add_shard_verbs(shards)


def add_vocabulary(verbs: Verbs) -> None:
    """`stillhouse vocabulary`."""
    _add_vocabulary_verbs(
        verbs.add_parser(
            "vocabulary",
            help="remove rare tokens from model and shards",
            description=VOCABULARY,
            epilog=VOCABULARY_EXAMPLE,
            formatter_class=RAW,
        )
    )


def add_cache(verbs: Verbs) -> None:
    """`stillhouse cache`."""
    cache = verbs.add_parser(
        "cache",
        help="store a teacher's hidden states for teacher.mode: cached",
        description=CACHE,
        epilog=CACHE_EXAMPLE,
        formatter_class=RAW,
    )
    add_config(cache)
    cache.add_argument(
        "--mode",
        default="replicated",
        choices=tuple(name for name, mode in MODES.items() if mode.computes),
        help="how ranks share it (replicated)",
    )
    cache.add_argument(
        "--positions", default=None, choices=("all", "masked"), help="whose states to keep (those that the objective looks at)"
    )


def _add_shard_verbs(parser: argparse.ArgumentParser) -> None:
    """The verbs of `stillhouse shards`."""
    verbs = parser.add_subparsers(dest="shards_verb", metavar="VERB", required=True)
    making = verbs.add_parser("build", help="text to tokenised shards", description=BUILD, epilog=BUILD_EXAMPLE, formatter_class=RAW)
    making.add_argument("sources", nargs="+", metavar="SOURCE", help="file, folder, glob or URL (or dataset name with --kind dataset)")
    making.add_argument("--out", required=True, metavar="FOLDER", help="where the shards go")
    making.add_argument("--tokenizer", required=True, metavar="MODEL", help="a model folder or hub name with a fast tokenizer")
    making.add_argument("--kind", default="auto", help=f"auto (by ending), {', '.join(BY_KIND)} or dataset")
    making.add_argument("--separator", default=None, metavar="CHARACTER", help="between the fields of csv (a tab for .tsv, else a comma)")
    making.add_argument("--quoting", default="auto", help="of quotes in csv: double, backslash, or none (none for .tsv, else double)")
    making.add_argument("--text", default="txt", metavar="MEMBER", help="text of a webdataset sample: txt, or json:FIELD (txt)")
    making.add_argument("--column", default="text", help="which column or key holds the text (default: text)")
    making.add_argument("--per", default="line", choices=("file", "line", "paragraph"), help="what is a document in plain text (line)")
    making.add_argument("--name", default=None, help="a dataset's configuration name")
    making.add_argument("--split", default="train", help="a dataset's split (default: train)")
    making.add_argument(
        "--invalid-utf8", default="error", choices=("error", "replace", "skip"), help="what to do with bytes that are not UTF-8 (error)"
    )
    making.add_argument("--heldout", type=float, default=0.01, metavar="SHARE", help="share of documents kept for evaluation (0.01)")
    making.add_argument("--drop-duplicates", action="store_true", help="keep the first of identical documents")
    making.add_argument("--shard-tokens", type=int, default=None, metavar="N", help="tokens per shard (16,777,216)")
    making.add_argument("--max-documents", type=int, default=None, metavar="N", help="stop after so many documents (all)")
    making.add_argument("--seed", type=int, default=1, help="decides which documents are held out (1)")
    making.add_argument(
        "--part", type=part, default=None, metavar="K/N", help="only tokenise part K (from 1) of N, on many machines at once"
    )
    making.add_argument(
        "--seal", type=at_least(1), default=None, metavar="N", help="make the shards of N finished parts: those of one build"
    )
    making.add_argument(
        "--processes", type=at_least(1), default=None, metavar="N", help="tokenising processes (all cores); never changes the result"
    )
    for verb, text in (("verify", "prove that shards keep every promise of their manifest"), ("info", "what is in a folder of shards")):
        example = f"example:\n  stillhouse shards {verb} shards/mine\n"
        reading = verbs.add_parser(verb, help=text, description=sentence(text), epilog=example, formatter_class=RAW)
        reading.add_argument("folder", metavar="FOLDER", help="a shard folder or URL")
        add_cache_folder(reading)
        reading.add_argument("--json", action="store_true", help="answer as JSON")
        if verb == "info":
            reading.add_argument("--samples", type=at_least(0), default=3, metavar="N", help="decoded beginnings of documents to show")


def _add_vocabulary_verbs(parser: argparse.ArgumentParser) -> None:
    """The one verb of `stillhouse vocabulary`."""
    verbs = parser.add_subparsers(dest="vocabulary_verb", metavar="VERB", required=True)
    pruning = verbs.add_parser(
        "prune",
        help="keep the tokens that a corpus uses most",
        description=PRUNE,
        epilog=VOCABULARY_EXAMPLE,
        formatter_class=RAW,
    )
    pruning.add_argument("model", metavar="MODEL", help="a model folder or hub name, with its masked-LM head and tokenizer")
    pruning.add_argument(
        "--shards", required=True, metavar="FOLDER", help="shards of its tokenizer: their counts decide, and they are re-mapped"
    )
    pruning.add_argument(
        "--size", type=at_least(1), required=True, metavar="N", help="entries to keep, special tokens and characters included"
    )
    pruning.add_argument("--out", required=True, metavar="FOLDER", help="where model/ and shards/ go")
    pruning.add_argument("--no-shards", action="store_true", help="the model alone")
    add_cache_folder(pruning)
