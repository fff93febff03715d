"""Arguments and types that several verbs share. Imports nothing heavy, so that --help answers at once."""

import argparse
import os
import sys
import textwrap
from collections.abc import Callable
from copy import copy
from typing import Any, NoReturn, TypeAlias

WIDTH = 80
RAW = argparse.RawDescriptionHelpFormatter
Verbs: TypeAlias = "argparse._SubParsersAction[Any]"


class Parser(argparse.ArgumentParser):
    """argparse, whose errors are one line here, like all others. The description is wrapped for 80 columns."""

    def __init__(self, description: str | None = None, **more: Any) -> None:
        wrapped = None if description is None else textwrap.fill(" ".join(description.split()), WIDTH)
        super().__init__(description=wrapped, **more)
        self._intermixed = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """As argparse, but options may stand between the words of a verb: `plan CONFIG --nodes 2 key=value`."""
        args = [_at_home(word) for word in (sys.argv[1:] if args is None else args)]
        known, rest = super().parse_known_args(args, copy(namespace))
        if self._subparsers is not None or self._intermixed or all(word.startswith("-") for word in rest):
            return known, rest
        self._intermixed = True  # parse_known_intermixed_args calls this method
        try:
            return super().parse_known_intermixed_args(args, namespace)
        finally:
            self._intermixed = False

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def _at_home(word: str) -> str:
    """The word with the user's folder for `~/`, also in `--out=~/x`, where a shell leaves it."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return f"{option}{equals}{os.path.expanduser(value)}" if value.startswith("~/") else word


def sentence(text: str) -> str:
    """The one line that lists a verb, as its description."""
    return f"{text[0].upper()}{text[1:]}."


def at_least(lowest: int) -> Callable[[str], int]:
    """A whole number that is not below `lowest`."""

    def number(text: str) -> int:
        if not text.strip().lstrip("+-").isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"expected a whole number of at least {lowest}, got {text}")
        return int(text)

    return number


def part(text: str) -> tuple[int, int]:
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


def add_runs(parser: argparse.ArgumentParser, folder: str, what: str) -> None:
    """Arguments of the verbs that start several runs."""
    parser.add_argument("--folder", default=folder, help=f"{what} ({folder})")
    parser.add_argument("--ranks", type=at_least(1), default=1, metavar="N", help="processes of each run (1)")
    parser.add_argument("--dry-run", action="store_true", help="print the runs and what they need, and stop")


def add_config(parser: argparse.ArgumentParser) -> None:
    """A configuration, and settings to use instead of its own."""
    parser.add_argument("--config", required=True, metavar="YAML", help="a configuration file, or the name of one in configs/")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings to use instead of the file's, as train.updates=100")


def add_cache_folder(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--cache-folder", default=None, metavar="FOLDER", help="where copies of remote shards are kept (needed for a URL)")
