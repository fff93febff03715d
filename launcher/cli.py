"""`stillhouse VERB`: the door for people. A verb's module is imported only when it is called, so that the others answer at once."""

import argparse
import os
import sys
from contextlib import suppress
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
    code = guarded(_dispatch, parser().parse_args())
    if os.environ.get("WORLD_SIZE", "1") == "1":
        sys.exit(code)
    with suppress(OSError):  # nobody reads any more, or a full disk
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(code)  # the interpreter's own end may abort one of several ranks: see kd.distributed.leave


def _dispatch(arguments: argparse.Namespace) -> int:
    """The chosen verb's own run."""
    return int(import_module(MODULES[arguments.verb]).run(arguments))


if __name__ == "__main__":
    main()
