"""`stillhouse VERB`: the door for people. A verb's module is imported only when it is called, so that the others answer at once."""

import argparse
import sys
from importlib import import_module

from launcher.arguments import parser
from launcher.guard import guarded

MODULES = {
    "demo": "launcher.demo",
    "doctor": "launcher.doctor",
    "train": "launcher.run",
    "evaluate": "launcher.scores",
    "compare": "launcher.compare",
    "chain": "launcher.chain",
    "cache": "launcher.cache",
    "layers": "launcher.layers",
    "shards": "launcher.shards",
    "vocabulary": "launcher.vocabulary",
    "wandb-replay": "launcher.replay",
}


def main() -> None:
    """The command's door."""
    sys.exit(guarded(_dispatch, parser().parse_args()))


def _dispatch(arguments: argparse.Namespace) -> int:
    """The chosen verb's own run."""
    return int(import_module(MODULES[arguments.verb]).run(arguments))


if __name__ == "__main__":
    main()
