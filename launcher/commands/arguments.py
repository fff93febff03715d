"""Every verb of `stillhouse` and what it is told. Imports nothing heavy, so that --help answers at once."""

import argparse
from collections.abc import Callable
from importlib import metadata
from typing import NoReturn

from data_shards.sources.formats import BY_KIND

TRAIN_EXAMPLE = """examples:
  deepspeed launcher/run.py --config configs/distilbert.yaml data.shards=/data/wiki train.micro_batch=16
  stillhouse train --config demo --dry-run
"""
EXAMPLES = """examples:
  stillhouse demo                                       the whole job on real text, in ten minutes
  stillhouse shards build --out shards/mine --tokenizer bert-base-uncased my_texts/*.txt
  stillhouse train --config laptop data.shards=shards/mine
  stillhouse evaluate runs/laptop/student --shards shards/mine --teacher bert-base-uncased
"""
DEMO_EXAMPLE = """example:
  stillhouse demo --folder runs/demo
"""
EVALUATE_EXAMPLE = """example:
  stillhouse evaluate runs/demo/student runs/demo/baseline/student --shards runs/demo/shards --teacher runs/demo/teacher/student
"""
COMPARE_EXAMPLE = """examples:
  stillhouse compare configs/compare/layers.yaml --dry-run
  stillhouse compare configs/compare/layers.yaml data.shards=shards/mine teacher.model=bert-base-uncased --budget tokens
  stillhouse compare configs/compare/*.yaml --budget time --jobs 2
"""
CHAIN_EXAMPLE = """example:
  stillhouse chain configs/chains/assistants.yaml data.shards=shards/mine teacher.model=bert-base-uncased
"""
CACHE_EXAMPLE = """example:
  stillhouse cache --config laptop data.shards=shards/mine teacher.mode=cached teacher.cache=caches/mine
  stillhouse train --config laptop data.shards=shards/mine teacher.mode=cached teacher.cache=caches/mine
  torchrun --nproc-per-node 8 -m launcher.cli cache --mode zero3 --config configs/distilbert.yaml
"""
LAYERS_EXAMPLE = """example:
  stillhouse layers --config configs/demo.yaml student.layers=last
"""
SHARDS_EXAMPLE = """examples:
  stillhouse shards build --out shards/mine --tokenizer bert-base-uncased my_texts/*.txt
  stillhouse shards verify shards/mine
  stillhouse shards info shards/mine
"""
BUILD_EXAMPLE = """examples:
  stillhouse shards build --out shards/mine --tokenizer bert-base-uncased my_texts/*.txt
  stillhouse shards build --out shards/wiki --tokenizer bert-base-uncased --kind dataset --name 20231101.en wikimedia/wikipedia
  stillhouse shards build --out shards/logs --tokenizer ./my_model --column body --drop-duplicates logs/*.jsonl.gz
"""
VOCABULARY_EXAMPLE = """example:
  stillhouse vocabulary prune bert-base-uncased --shards shards/mine --size 8000 --out pruned
  stillhouse train --config laptop teacher.model=pruned/model data.shards=pruned/shards
"""
DOCTOR_EXAMPLE = """examples:
  stillhouse doctor --folder runs --shards shards/mine   this machine: software, ranks, disks, network
  srun --ntasks=2 stillhouse doctor                      the same on compute nodes
  stillhouse doctor runs/laptop                          a run: its health, why it stopped, what to do
"""
REPLAY_EXAMPLE = """example:
  stillhouse wandb-replay runs/laptop --project my-project
"""


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are one line here, like all others."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def at_least(lowest: int) -> Callable[[str], int]:
    """A whole number that is not below `lowest`."""

    def number(text: str) -> int:
        if not text.strip().lstrip("+-").isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {lowest}, got {text}")
        return int(text)

    return number


def _part(text: str) -> tuple[int, int]:
    """`3/8` -> (2, 8): the number of a part, from 0, and how many there are."""
    number, _, count = text.partition("/")
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise argparse.ArgumentTypeError(f"expected K/N with K from 1 to N, got {text}")
    return int(number) - 1, int(count)


def above_zero(text: str) -> float:
    """A finite number above 0, as 1e5."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text}")
    return value


def share(text: str) -> float:
    """A number between 0 and 1, neither included."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1:
        raise argparse.ArgumentTypeError(f"expected a share between 0 and 1, got {text}")
    return value


def parser() -> argparse.ArgumentParser:
    """Every verb and its arguments."""
    raw = argparse.RawDescriptionHelpFormatter
    top = Parser(
        prog="stillhouse", description="Pretraining distillation: text in, a small encoder out.", epilog=EXAMPLES, formatter_class=raw
    )
    top.add_argument("--version", action="version", version=f"stillhouse {metadata.version('stillhouse')}")
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True)

    demo = verbs.add_parser(
        "demo",
        help="the main job from text to a measured student, on text and a teacher from packages",
        epilog=DEMO_EXAMPLE,
        formatter_class=raw,
    )
    demo.add_argument("--folder", default="runs/demo", help="where everything goes (runs/demo)")
    demo.add_argument("--seed", type=at_least(0), default=1, help="of masks, order and initialisation")

    train = verbs.add_parser(
        "train", help="one run, on this process or by torchrun's environment", epilog=TRAIN_EXAMPLE, formatter_class=raw
    )
    add_train(train)

    evaluate = verbs.add_parser("evaluate", help="held-out scores of any MLM encoder", epilog=EVALUATE_EXAMPLE, formatter_class=raw)
    evaluate.add_argument("models", nargs="+", metavar="MODEL", help="model folders or hub names")
    evaluate.add_argument("--shards", required=True, metavar="FOLDER", help="shards whose held-out part is used")
    _add_cache(evaluate)
    evaluate.add_argument("--teacher", default=None, metavar="MODEL", help="also: retention, agreement and KL to this one")
    evaluate.add_argument("--window-tokens", type=at_least(4), default=128, metavar="N", help="positions per window (128)")
    evaluate.add_argument(
        "--packing", default="windows", choices=("windows", "documents"), help="several documents in a row (windows), or one piece of one"
    )
    evaluate.add_argument("--windows", type=at_least(1), default=None, metavar="N", help="how many held-out windows (all)")
    evaluate.add_argument("--batch", type=at_least(1), default=32, metavar="N", help="windows at a time (32)")
    evaluate.add_argument("--mask-rate", type=share, default=0.15, metavar="SHARE", help="share of tokens predicted (0.15)")
    evaluate.add_argument("--seed", type=at_least(0), default=1, help="of the masks")
    evaluate.add_argument("--json", default=None, metavar="FILE", help="also write the scores there")

    compare = verbs.add_parser(
        "compare", help="variants of a run at equal tokens or time, over seeds", epilog=COMPARE_EXAMPLE, formatter_class=raw
    )
    compare.add_argument("words", nargs="+", metavar="FILE | key=value", help="comparison files; settings for all their runs")
    compare.add_argument("--budget", default="tokens", choices=("tokens", "time"), help="what every run gets the same of (tokens)")
    compare.add_argument("--amount", type=above_zero, metavar="N", help="tokens, or seconds of learning, of each run (the file's)")
    _add_runs(compare, "runs/compare", "where each file's comparison gets a folder of its name")
    compare.add_argument("--report", action="store_true", help="report the runs that are done, and start nothing")
    compare.add_argument("--jobs", type=at_least(1), default=1, metavar="N", help="runs side by side (1)")

    chain = verbs.add_parser(
        "chain", help="runs of which each teaches the next: teacher assistants", epilog=CHAIN_EXAMPLE, formatter_class=raw
    )
    chain.add_argument("words", nargs="+", metavar="FILE | key=value", help="a chain file; settings for all its runs")
    _add_runs(chain, "runs/chain", "where everything goes")

    cache = verbs.add_parser(
        "cache", help="a teacher's hidden states, kept for runs with teacher.mode: cached", epilog=CACHE_EXAMPLE, formatter_class=raw
    )
    _add_config(cache)
    cache.add_argument(
        "--mode",
        default="replicated",
        choices=("replicated", "zero3", "tensor_parallel"),
        help="how ranks share it (replicated)",
    )
    cache.add_argument(
        "--positions", default=None, choices=("all", "masked"), help="whose states to keep (those that the objective looks at)"
    )

    layers = verbs.add_parser(
        "layers",
        help="how alike student and teacher layers are on the corpus, and the layer map that speaks for",
        epilog=LAYERS_EXAMPLE,
        formatter_class=raw,
    )
    _add_config(layers)
    layers.add_argument("--tokens", type=at_least(2), default=4096, metavar="N", help="tokens of the corpus to compare on (4096)")

    shards = verbs.add_parser("shards", help="build, verify and describe tokenised shards", epilog=SHARDS_EXAMPLE, formatter_class=raw)
    _add_shards(shards)
    _add_vocabulary(
        verbs.add_parser("vocabulary", help="a model and its shards with fewer pieces", epilog=VOCABULARY_EXAMPLE, formatter_class=raw)
    )
    doctor = verbs.add_parser(
        "doctor", help="what a run would meet on this machine, or how a run is", epilog=DOCTOR_EXAMPLE, formatter_class=raw
    )
    doctor.add_argument("run", nargs="?", default=None, metavar="RUN", help="a run folder; without it: this machine")
    doctor.add_argument("--folder", default="runs", metavar="FOLDER", help="where runs will be kept: its disk is tried (runs)")
    doctor.add_argument("--shards", default=None, metavar="FOLDER", help="shards that will be read")
    doctor.add_argument("--clear-locks", action="store_true", help=argparse.SUPPRESS)
    doctor.add_argument("--json", action="store_true", help="answer as JSON")
    replay = verbs.add_parser(
        "wandb-replay",
        help="one clean W&B run, rebuilt from a run folder's metrics.jsonl",
        epilog=REPLAY_EXAMPLE,
        formatter_class=raw,
    )
    replay.add_argument("folder", metavar="RUN", help="a run folder")
    replay.add_argument("--mode", default="online", choices=("online", "offline"), help="where to (online)")
    replay.add_argument("--project", default="stillhouse", help="W&B project")
    replay.add_argument("--entity", default=None, help="W&B user or team")
    return top


def add_train(parser: argparse.ArgumentParser) -> None:
    """What a run is told on the command line."""
    _add_config(parser)
    parser.add_argument("--scale", default=None, metavar="NAME", help="the same run in small: demo, on what `stillhouse demo` left")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved configuration and what it needs, and stop")
    parser.add_argument("--resume", action="store_true", help="fail unless there is a checkpoint to continue from")
    parser.add_argument("--local_rank", type=int, default=None, help=argparse.SUPPRESS)  # deepspeed's launcher passes it


def _add_runs(parser: argparse.ArgumentParser, folder: str, what: str) -> None:
    """What the verbs that start several runs have in common."""
    parser.add_argument("--folder", default=folder, help=f"{what} ({folder})")
    parser.add_argument("--ranks", type=at_least(1), default=1, metavar="N", help="processes of each run (1)")
    parser.add_argument("--dry-run", action="store_true", help="print the runs and what they need, and stop")


def _add_config(parser: argparse.ArgumentParser) -> None:
    """A configuration, and settings to use instead of its own."""
    parser.add_argument("--config", required=True, metavar="YAML", help="a configuration file, or the name of one in configs/")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings to use instead of the file's, as train.updates=100")


def _add_cache(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache-folder", default=None, metavar="FOLDER", help="where copies of remote shards are kept (needed for a URL)")


def _add_vocabulary(parser: argparse.ArgumentParser) -> None:
    """The one verb of `stillhouse vocabulary`."""
    verbs = parser.add_subparsers(dest="vocabulary_verb", metavar="VERB", required=True)
    pruning = verbs.add_parser(
        "prune",
        help="keep the pieces that a corpus uses most",
        epilog=VOCABULARY_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
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
    _add_cache(pruning)


def _add_shards(parser: argparse.ArgumentParser) -> None:
    """The verbs of `stillhouse shards`."""
    verbs = parser.add_subparsers(dest="shards_verb", metavar="VERB", required=True)
    raw = argparse.RawDescriptionHelpFormatter
    making = verbs.add_parser("build", help="text to tokenised shards", epilog=BUILD_EXAMPLE, formatter_class=raw)
    making.add_argument("sources", nargs="+", metavar="SOURCE", help="file, folder, glob or URL (or dataset name with --kind dataset)")
    making.add_argument("--out", required=True, metavar="FOLDER", help="where the shards go")
    making.add_argument("--tokenizer", required=True, metavar="MODEL", help="a model folder or hub name with a fast tokenizer")
    making.add_argument("--kind", default="auto", help=f"auto (by ending), {', '.join(BY_KIND)} or dataset")
    making.add_argument("--separator", default=None, metavar="CHARACTER", help="between the fields of csv (a tab for .tsv, else a comma)")
    making.add_argument("--quoting", default="auto", help="of quotes in csv: double, backslash, or none (none for .tsv, else double)")
    making.add_argument("--text", default="txt", metavar="MEMBER", help="text of a webdataset sample: txt, or json:FIELD (txt)")
    making.add_argument("--column", default="text", help="which column or key holds the text (default: text)")
    making.add_argument("--per", default="line", choices=("file", "line", "paragraph"), help="what is a document in plain text")
    making.add_argument("--name", default=None, help="a dataset's configuration name")
    making.add_argument("--split", default="train", help="a dataset's split (default: train)")
    making.add_argument("--invalid-utf8", default="error", choices=("error", "replace", "skip"), help="for bytes that are not UTF-8")
    making.add_argument("--heldout", type=float, default=0.01, metavar="SHARE", help="share of documents kept for evaluation (0.01)")
    making.add_argument("--drop-duplicates", action="store_true", help="keep the first of identical documents")
    making.add_argument("--shard-tokens", type=int, default=None, metavar="N", help="tokens per shard")
    making.add_argument("--max-documents", type=int, default=None, metavar="N", help="stop after so many documents")
    making.add_argument("--seed", type=int, default=1, help="decides which documents are held out")
    making.add_argument("--part", type=_part, default=None, metavar="K/N", help="only tokenise part K (from 1) of N, for many machines")
    making.add_argument(
        "--seal", type=at_least(1), default=None, metavar="N", help="make the shards of N finished parts: those of one build"
    )
    making.add_argument(
        "--processes", type=at_least(1), default=None, metavar="N", help="tokenising processes (all cores); never changes the result"
    )
    for verb, text in (("verify", "prove that shards keep every promise of their manifest"), ("info", "what is in a folder of shards")):
        reading = verbs.add_parser(verb, help=text, epilog=f"example:\n  stillhouse shards {verb} shards/mine\n", formatter_class=raw)
        reading.add_argument("folder", metavar="FOLDER", help="a shard folder or URL")
        _add_cache(reading)
        reading.add_argument("--json", action="store_true", help="answer as JSON")
        if verb == "info":
            reading.add_argument("--samples", type=at_least(0), default=3, metavar="N", help="decoded beginnings of documents to show")
