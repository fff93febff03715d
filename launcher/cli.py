"""`stillhouse VERB`: the door for people. A verb's module is imported only when it is called, so that the others answer at once."""

import argparse
import os
import sys
from contextlib import suppress
from importlib import import_module

from launcher.commands.arguments import parser
from launcher.process.error_exit import guarded
from launcher.process.model_hub import require_model

MODULES = {
    "demo": "launcher.demo.demo",
    "doctor": "launcher.doctor.doctor",
    "train": "launcher.run",
    "evaluate": "launcher.evaluation.evaluate",
    "compare": "launcher.comparison.compare",
    "chain": "launcher.comparison.chain",
    "cache": "launcher.corpus.teacher_cache",
    "layers": "launcher.evaluation.layers",
    "shards": "launcher.corpus.shards",
    "vocabulary": "launcher.corpus.prune_vocabulary",
    "wandb-replay": "launcher.reporting.wandb_replay",
}


def main() -> None:
    """The command's door."""
    code = guarded(_dispatch, parser().parse_args())
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    with suppress(OSError):  # nobody reads any more, or a full disk
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # the interpreter's own end may abort one of several ranks: see kd.distributed.process_group.leave


def _dispatch(arguments: argparse.Namespace) -> int:
    """The chosen verb's own run."""
    if getattr(arguments, "shards_verb", None) == "build":
        require_model("--tokenizer", arguments.tokenizer)
    return int(import_module(MODULES[arguments.verb]).run(arguments))


if __name__ == "__main__":
    main()
