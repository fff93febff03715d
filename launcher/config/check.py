"""The arguments of a job script, checked before the job is submitted: `python -m launcher.config.check VERB ARGUMENT …`.

VERB is a verb of `stillhouse`, or `sweep LIST` for one run for each line of a list. Nothing is started, and no shard or model folder has to
exist, because an earlier job can write it.
"""

import argparse
import shlex
import sys
from pathlib import Path

from launcher.commands.parser import parser
from launcher.config.load import load_run
from launcher.errors import LaunchError
from launcher.process.error_exit import guarded


def check(words: list[str]) -> None:
    """Return if a verb would accept the words, and the configuration that they name is valid. Raises LaunchError or SystemExit."""
    lines = [""]
    if words[:1] == ["sweep"]:
        text = Path(words[1]).read_text(encoding="utf-8")
        lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
        words = ["train", *words[2:]]
    arguments = parser().parse_args(words)
    if arguments.verb != "train":
        return
    for number, line in enumerate(lines, start=1):
        try:
            load_run(arguments.config, [*arguments.settings, *shlex.split(line)], arguments.scale)
        except LaunchError as error:
            raise LaunchError(f"run {number}: {error}" if line else str(error)) from None


def _main(arguments: argparse.Namespace) -> int:
    check(arguments.words)
    return 0


if __name__ == "__main__":
    sys.exit(guarded(_main, argparse.Namespace(words=sys.argv[1:])))
